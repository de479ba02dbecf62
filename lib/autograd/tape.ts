import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf } from './layout.js'
import type { Parameter } from './parameter.js'
import type { GradientSink, GradientSite } from './sinks.js'

interface Entry {
  readonly outputs: readonly Tensor[]
  readonly saved: readonly (Tensor | undefined)[]
  readonly backward: (gradients: readonly (Tensor | undefined)[]) => void
}

export interface TapeOptions {
  /**
   * Backward frees what a forward op made as soon as its own backward has run: nothing that was computed on this tape but
   * its loss may be used afterwards. Default false: all stays until it is disposed.
   */
  readonly releases?: boolean
  /** Rows whose scores over a vocabulary are held at once. Default: what takes 32 MiB, at least 64. */
  readonly scoreRows?: number
}

/** A tape for a part of a pass, see `checkpoint`. */
interface PartOptions extends TapeOptions {
  /** Default: that of the whole. */
  readonly sink?: GradientSink
  /** False: a first run, which will be recorded when it is run again. Default true. */
  readonly records?: boolean
}

/**
 * Records what a forward pass did, and runs it backwards. Without a sink nothing is recorded (evaluation).
 * Weight gradients are never made here: each use of a parameter goes to the sink as a gradient site.
 */
export class Tape {
  readonly #entries: Entry[] = []
  readonly #tracked = new Set<Tensor>()
  readonly #gradients = new Map<Tensor, Tensor>()
  /** How many tensors a tensor is the gradient of. */
  readonly #holders = new Map<Tensor, number>()
  /** What must outlive backward: tensors of sites that the sink kept. */
  readonly #retained = new Set<Tensor>()
  /** What came from outside and is not ours to free. */
  readonly #given = new Set<Tensor>()
  /** What the op whose backward runs leaves behind. */
  #left: Tensor[] = []
  /** How often the forward pass used each parameter, over all parts. */
  #uses = new Map<Parameter, number>()
  #counts = true
  #records = true
  readonly #releases: boolean
  readonly #scoreRows: number | undefined

  constructor(
    readonly device: Device,
    readonly sink?: GradientSink,
    { releases = false, scoreRows }: TapeOptions = {},
  ) {
    this.#releases = releases
    this.#scoreRows = scoreRows
  }

  /** A tape for a part of this pass: a first run counts parameters' uses, a run of it again does not. */
  part({ sink = this.sink, records = true, releases = false }: PartOptions): Tape {
    const scoreRows = this.#scoreRows
    const tape = new Tape(this.device, sink, { releases, ...(scoreRows !== undefined && { scoreRows }) })
    tape.#uses = this.#uses
    tape.#records = this.#records && records
    tape.#counts = this.#counts && !records
    return tape
  }

  /** Whether ops keep what their backward needs. */
  get records(): boolean {
    return this.sink !== undefined && this.#records
  }

  /** How many rows of scores over so many classes are held at once: a pure function of the model. */
  scoreRows(classes: number): number {
    return this.#scoreRows ?? Math.max(64, Math.floor(2 ** 23 / classes / 64) * 64)
  }

  /** Whether gradients with respect to `tensor` are wanted. */
  tracks(tensor: Tensor): boolean {
    return this.#tracked.has(tensor)
  }

  /** Whether a site of this parameter is wanted. */
  trains(parameter: Parameter | undefined): parameter is Parameter {
    return this.sink !== undefined && parameter?.trainable === true
  }

  /**
   * Records an op: `backward` receives the gradients of `outputs` (undefined where none arrived). `saved` is what the op
   * made for its own backward alone. Recorded only if a parameter it uses trains or an input is tracked.
   */
  record(
    outputs: readonly Tensor[],
    inputs: readonly Tensor[],
    parameters: readonly (Parameter | undefined)[],
    backward: (gradients: readonly (Tensor | undefined)[]) => void,
    saved: readonly (Tensor | undefined)[] = [],
  ): void {
    if (!this.sink) return
    const trained = parameters.filter((parameter) => this.trains(parameter))
    if (!inputs.some((input) => this.#tracked.has(input)) && trained.length === 0) return
    if (this.#counts) for (const parameter of trained) this.#uses.set(parameter, (this.#uses.get(parameter) ?? 0) + 1)
    this.recordTracked(outputs, backward, saved)
  }

  /** As `record`, where it is known that gradients are wanted. */
  recordTracked(outputs: readonly Tensor[], backward: Entry['backward'], saved: Entry['saved'] = []): void {
    for (const output of outputs) this.#tracked.add(output)
    if (this.records) this.#entries.push({ outputs, saved, backward })
  }

  /** Adds to the gradient of `tensor`, which has its dtype; call it from an op's backward. */
  addGradient(tensor: Tensor, gradient: Tensor): void {
    if (!this.#tracked.has(tensor)) return
    const present = this.#gradients.get(tensor)
    if (!present) {
      this.#setGradient(tensor, gradient)
      return
    }
    const sum = this.device.empty(tensor.shape, { layout: layoutOf(tensor), dtype: tensor.dtype })
    this.device.run('add', { a: present, b: gradient, y: sum, size: sum.size, alpha: 1, beta: 1 })
    this.#setGradient(tensor, sum)
    this.#letGo(present)
  }

  /** Hands a use of a trainable parameter to the sink. */
  addSite(site: GradientSite): void {
    if (this.sink) this.retain(this.sink.add(site, this.isOnlyUse(site.parameter)))
  }

  /** Whether the forward pass used this parameter once. */
  isOnlyUse(parameter: Parameter): boolean {
    return this.#uses.get(parameter) === 1
  }

  /** Keeps tensors when backward frees what it no longer needs. */
  retain(tensors: readonly Tensor[]): void {
    for (const tensor of tensors) this.#retained.add(tensor)
    if (this.#releases) this.#left.push(...tensors)
  }

  /** What `retain` was told of. */
  get retained(): readonly Tensor[] {
    return [...this.#retained]
  }

  /** Runs backward from a loss per unit, [units]: the gradient of the sum over units, kept apart by unit. */
  backward(lossPerUnit: Tensor): void {
    const layout = layoutOf(lossPerUnit)
    if (lossPerUnit.shape.length !== 1 || layout === undefined || layout.kind !== 'rows' || layout.perUnit !== layout) {
      throw new DpMoeError(
        'SHAPE_MISMATCH',
        `backward: expected one loss per unit, got ${describe(lossPerUnit)}; pool row losses with meanPerUnit first`,
      )
    }
    if (!this.sink) throw new DpMoeError('INVALID_ARGUMENT', 'backward: this tape has no gradient sink (evaluation)')
    const ones = this.device.tensor(new Float32Array(lossPerUnit.size).fill(1), lossPerUnit.shape)
    this.backwardFrom([[lossPerUnit, ones]])
  }

  /** Runs backward from tensors whose gradients are given. */
  backwardFrom(seeds: readonly (readonly [tensor: Tensor, gradient: Tensor | undefined])[]): void {
    for (const [tensor, gradient] of seeds) {
      this.#given.add(tensor)
      if (gradient) this.#given.add(gradient)
      if (gradient && this.#tracked.has(tensor)) this.#setGradient(tensor, gradient)
    }
    for (let entry = this.#entries.pop(); entry; entry = this.#entries.pop()) {
      const gradients = entry.outputs.map((output) => this.#gradients.get(output))
      if (gradients.some((gradient) => gradient !== undefined)) this.#run(entry, gradients)
      for (const output of entry.outputs) {
        const gradient = this.#gradients.get(output)
        this.#gradients.delete(output)
        if (gradient) this.#letGo(gradient)
      }
      if (!this.#releases) continue
      for (const tensor of [...entry.outputs, ...entry.saved]) if (tensor) this.#release(tensor)
    }
  }

  /** The gradient that arrived at a leaf registered with `watch`. */
  gradientOf(tensor: Tensor): Tensor | undefined {
    return this.#gradients.get(tensor)
  }

  /** Tracks an input that no op of this tape made, so that `gradientOf` tells its gradient; it is added to the one given. */
  watch(tensor: Tensor, gradient?: Tensor): Tensor {
    this.#tracked.add(tensor)
    if (gradient) this.#given.add(gradient)
    if (gradient) this.#setGradient(tensor, gradient)
    return tensor
  }

  /** Puts a gradient in the place of the one that arrived at `tensor` so far. */
  replaceGradient(tensor: Tensor, gradient: Tensor): void {
    const present = this.#gradients.get(tensor)
    this.#setGradient(tensor, gradient)
    if (present) this.#letGo(present)
  }

  #run(entry: Entry, gradients: readonly (Tensor | undefined)[]): void {
    if (!this.#releases) {
      entry.backward(gradients)
      return
    }
    this.#left = []
    this.device.scope(() => {
      entry.backward(gradients)
      return this.#left
    })
  }

  #setGradient(tensor: Tensor, gradient: Tensor): void {
    this.#gradients.set(tensor, gradient)
    this.#holders.set(gradient, (this.#holders.get(gradient) ?? 0) + 1)
    if (this.#releases) this.#left.push(gradient)
  }

  #letGo(gradient: Tensor): void {
    const holders = this.#holders.get(gradient)! - 1
    if (holders > 0) {
      this.#holders.set(gradient, holders)
      return
    }
    this.#holders.delete(gradient)
    if (this.#releases) this.#release(gradient)
  }

  #release(tensor: Tensor): void {
    const isNeeded = this.#retained.has(tensor) || this.#holders.has(tensor) || this.#given.has(tensor)
    if (!isNeeded) tensor[Symbol.dispose]()
  }
}
