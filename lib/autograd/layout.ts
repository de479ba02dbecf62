import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'

/**
 * Which unit each row of a tensor belongs to: rows `offsets[u]` to `offsets[u + 1]` are unit u's.
 * Two tensors are aligned when they carry the same layout object; nothing else lets their rows meet.
 */
export class UnitLayout {
  readonly kind = 'rows'
  readonly name: string
  /** Host copy of the row offsets, [units + 1]. */
  readonly offsets: Int32Array
  /** Data set positions of the units, [units]: keys of dropout and jitter. */
  readonly ids: Int32Array
  readonly device: Device
  /** Bounds of the sequences (rows that see each other in attention and pooling), where units hold several. */
  readonly #sequences: Sequences | undefined
  // On the device, where a scope may end them: made again when they are asked for.
  #offsetsTensor: Tensor
  #unitIds: Tensor
  #sequenceOffsets: Tensor | undefined
  #perUnit: UnitLayout | undefined
  #perSequence: UnitLayout | undefined

  constructor(
    device: Device,
    offsets: Int32Array,
    ids: Int32Array,
    name = 'rows',
    { unitIds, sequences }: LayoutOptions = {},
  ) {
    if (offsets.length < 1 || offsets[0] !== 0) {
      throw new DpMoeError('INVALID_ARGUMENT', 'Expected row offsets that start at 0 for a unit layout')
    }
    this.name = name
    this.offsets = offsets
    this.device = device
    this.#offsetsTensor = device.tensor(offsets, [offsets.length], 'int32')
    this.ids = ids
    this.#unitIds = unitIds ?? device.tensor(ids, [ids.length], 'int32')
    if (ids.length !== this.units) {
      throw new DpMoeError(
        'SHAPE_MISMATCH',
        `Expected ${this.units} unit ids for a layout of ${this.units} units, got ${ids.length}`,
      )
    }
    if (sequences) requireSequences(sequences, offsets)
    this.#sequences = sequences
  }

  /** The offsets on the device. */
  get offsetsTensor(): Tensor {
    this.#offsetsTensor = this.#onDevice(this.#offsetsTensor, this.offsets)
    return this.#offsetsTensor
  }

  /** The ids on the device. */
  get unitIds(): Tensor {
    this.#unitIds = this.#onDevice(this.#unitIds, this.ids)
    return this.#unitIds
  }

  get units(): number {
    return this.offsets.length - 1
  }

  get rows(): number {
    return this.offsets[this.offsets.length - 1]!
  }

  /** The layout of tensors with one row per unit (after pooling). */
  get perUnit(): UnitLayout {
    if (!this.#perUnit) {
      const identity = Int32Array.from({ length: this.units + 1 }, (_, unit) => unit)
      const name = `one row per unit of ${this.name}`
      this.#perUnit = new UnitLayout(this.device, identity, this.ids, name, { unitIds: this.unitIds })
      this.#perUnit.#perUnit = this.#perUnit
    }
    return this.#perUnit
  }

  /** Number of sequences: rows of one sequence see each other in attention and pooling. One a unit, unless stated. */
  get sequenceCount(): number {
    return this.#sequences === undefined ? this.units : this.#sequences.offsets.length - 1
  }

  /** First row of each sequence, and the number of rows, on the device [sequences + 1]. */
  get sequenceOffsets(): Tensor {
    if (this.#sequences === undefined) return this.offsetsTensor
    this.#sequenceOffsets = this.#onDevice(this.#sequenceOffsets, this.#sequences.offsets)
    return this.#sequenceOffsets
  }

  /** The same on the host. */
  get sequenceBounds(): Int32Array {
    return this.#sequences?.offsets ?? this.offsets
  }

  /** The layout of tensors with one row per sequence; `perUnit` where every unit is one sequence. */
  get perSequence(): UnitLayout {
    if (this.#sequences === undefined) return this.perUnit
    if (!this.#perSequence) {
      const name = `one row per sequence of ${this.name}`
      const { unitOffsets, offsets } = this.#sequences
      const identity = Int32Array.from(offsets.keys())
      const sequences = { offsets: identity, unitOffsets }
      this.#perSequence = new UnitLayout(this.device, unitOffsets, this.ids, name, { unitIds: this.unitIds, sequences })
      this.#perSequence.#perUnit = this.perUnit
      this.#perSequence.#perSequence = this.#perSequence
    }
    return this.#perSequence
  }

  /** First sequence of each unit, and the number of sequences, [units + 1]. */
  get unitSequences(): Int32Array {
    return this.#sequences?.unitOffsets ?? Int32Array.from({ length: this.units + 1 }, (_, unit) => unit)
  }

  /**
   * Other rows of the same units, sequence by sequence: what a decoder writes beside what its encoder reads. Sequence s has
   * rows `offsets[s]` to `offsets[s + 1]`. Both have one layout for tensors with one row per unit or sequence.
   */
  beside(offsets: Int32Array, name: string): UnitLayout {
    if (offsets.length !== this.sequenceCount + 1) {
      const got = offsets.length - 1
      throw new DpMoeError('SHAPE_MISMATCH', `Expected ${this.sequenceCount} sequences for ${name}, got ${got}`)
    }
    const unitOffsets = this.#sequences?.unitOffsets
    const rows = unitOffsets ? unitOffsets.map((sequence) => offsets[sequence]!) : offsets
    const sequences = unitOffsets && { offsets, unitOffsets }
    const other = new UnitLayout(this.device, rows, this.ids, name, { unitIds: this.unitIds, sequences })
    other.#perUnit = this.perUnit
    other.#perSequence = this.perSequence
    return other
  }

  /** Whether `other` has rows of the same units, sequence by sequence: this layout, or one made by `beside`. */
  pairedWith(other: UnitLayout): boolean {
    return this === other || (this.perUnit === other.perUnit && this.perSequence === other.perSequence)
  }

  /** The rows as segments of a layer every row goes through. */
  get segments(): Segments {
    return { offsets: this.offsetsTensor, segments: this.units, units: this.units, lengths: this.#lengths(), fanOut: 1 }
  }

  #onDevice(present: Tensor | undefined, values: Int32Array): Tensor {
    return present && !present.disposed ? present : this.device.tensor(values, [values.length], 'int32')
  }

  #lengths(): Int32Array {
    return Int32Array.from({ length: this.units }, (_, unit) => this.offsets[unit + 1]! - this.offsets[unit]!)
  }
}

/** Sequences inside units: rows `offsets[s]` to `offsets[s + 1]`, sequences `unitOffsets[u]` to `unitOffsets[u + 1]`. */
export interface Sequences {
  readonly offsets: Int32Array
  readonly unitOffsets: Int32Array
}

export interface LayoutOptions {
  /** The unit ids where they are on the device already. */
  readonly unitIds?: Tensor
  /** Default: every unit is one sequence. */
  readonly sequences?: Sequences | undefined
}

function requireSequences({ offsets, unitOffsets }: Sequences, rows: Int32Array): void {
  const fits =
    unitOffsets.length === rows.length &&
    unitOffsets[0] === 0 &&
    unitOffsets.at(-1) === offsets.length - 1 &&
    rows.every((bound, unit) => offsets[unitOffsets[unit]!] === bound) &&
    offsets.every((bound, sequence) => sequence === 0 || bound >= offsets[sequence - 1]!)
  if (fits) return
  throw new DpMoeError('INVALID_ARGUMENT', 'Expected sequences that divide the rows of each unit')
}

/** Rows in the order of a routing plan: sorted by (expert, unit), a slot per (row, choice) pair. */
export class RoutedLayout {
  readonly kind = 'routed'
  readonly name: string

  constructor(
    /** The layout of the rows that were routed. */
    readonly source: UnitLayout,
    /** Expert-major segment bounds, [experts * units + 1]; how many slots are in use is known on the device only. */
    readonly segmentOffsets: Tensor,
    /** Source row of each slot, [rows * expertsPerToken]. */
    readonly rowOfSlot: Tensor,
    /** Slot of each (row, choice), [rows, expertsPerToken]; -1 where capacity dropped it. */
    readonly slotOf: Tensor,
    readonly experts: number,
    readonly expertsPerToken: number,
  ) {
    this.name = `slots of ${experts} experts`
  }

  get slots(): number {
    return this.source.rows * this.expertsPerToken
  }

  get segments(): Segments {
    return {
      offsets: this.segmentOffsets,
      segments: this.experts * this.source.units,
      units: this.source.units,
      lengths: this.source.segments.lengths,
      fanOut: this.expertsPerToken,
    }
  }
}

/** Segments as the native ops take them; see native/include/params.h. */
export interface Segments {
  readonly offsets: Tensor
  readonly segments: number
  readonly units: number
  /** Rows of each unit before routing; a unit's segments hold at most lengths[u] * fanOut rows together. */
  readonly lengths: Int32Array
  readonly fanOut: number
}

export type Layout = UnitLayout | RoutedLayout

/** The layout a tensor carries, or undefined for one that belongs to no unit (a parameter, public state). */
export function layoutOf(tensor: Tensor): Layout | undefined {
  return tensor.layout as Layout | undefined
}

/** The unit layout of `tensor`; throws where it has none. */
export function requireUnits(operation: string, tensor: Tensor): UnitLayout {
  const layout = layoutOf(tensor)
  if (!(layout instanceof UnitLayout)) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `${operation}: expected a tensor whose rows belong to units, got ${describe(tensor)}; make it with batch layouts`,
    )
  }
  return layout
}

/** Refuses two tensors whose rows do not belong to the same units in the same order. */
export function requireAligned(operation: string, a: Tensor, b: Tensor): void {
  if (layoutOf(a) === layoutOf(b)) return
  throw new DpMoeError(
    'UNIT_MIXING',
    `${operation}: rows of ${describe(a)} and ${describe(b)} would be mixed, but they belong to different units or orders`,
  )
}

/** Refuses a tensor that belongs to units where only a parameter or public value may stand. */
export function requireShared(operation: string, role: string, tensor: Tensor): void {
  if (layoutOf(tensor) === undefined) return
  throw new DpMoeError(
    'UNIT_MIXING',
    `${operation}: ${role} must not depend on units, got ${describe(tensor)}; every row would read rows of other units`,
  )
}

/** Refuses an op that has no meaning within one unit. */
export function refuseMixing(operation: string, tensor: Tensor, instead: string): void {
  if (layoutOf(tensor) === undefined) return
  throw new DpMoeError(
    'UNIT_MIXING',
    `${operation}: would mix rows of different units of ${describe(tensor)}; use ${instead} instead`,
  )
}

export function describe(tensor: Tensor): string {
  const layout = layoutOf(tensor)
  return `tensor [${tensor.shape.join(', ')}]${layout ? ` (${layout.name})` : ''}`
}
