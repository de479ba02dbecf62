import { createHash } from 'node:crypto'
import { OutOfRangeError } from '../errors.js'
import { type BagOptions, bagOf } from './bag.js'
import { GrowingArray } from './growing-array.js'
import { type EncodedUnit, type PackedBatch, packBatch } from './packing.js'
import type { Tokenizer } from './tokenizer.js'

/** The memory of a {@link Dataset}: N units, S sequences (N, unless units are users with several), R rows in all. */
export interface DatasetArrays {
  /** Token id of each row [R]. */
  ids: Int32Array
  /** Weight of each row [R]; absent where the units are sequences. */
  weights?: Float32Array
  /** First row of each sequence, and R [S + 1]. */
  offsets: Int32Array
  /** Class index of each sequence [S]; of a language model's, the place of the first token to learn. */
  labels: Int32Array
  /** First sequence of each unit, and S [N + 1]; absent where every sequence is a unit of its own. */
  unitOffsets?: Int32Array
}

/** Encoded units with their classes (or what else a label says), held in a few typed arrays: four bytes a row and eight a unit (bags: eight a row). */
export class Dataset implements DatasetArrays {
  readonly ids: Int32Array
  readonly weights?: Float32Array
  readonly offsets: Int32Array
  readonly labels: Int32Array
  readonly unitOffsets?: Int32Array
  #fingerprint: string | undefined

  /** @throws RangeError when the arrays' lengths do not fit together */
  constructor(arrays: DatasetArrays) {
    const { ids, weights, offsets, labels, unitOffsets } = arrays
    if (offsets.length !== labels.length + 1) {
      throw new OutOfRangeError('offsets', `${labels.length + 1} entries`, offsets.length)
    }
    if (offsets[0] !== 0 || offsets[labels.length] !== ids.length) {
      throw new OutOfRangeError('offsets', `a run from 0 to ${ids.length}`, `${offsets[0]} to ${offsets.at(-1)}`)
    }
    if (weights !== undefined && weights.length !== ids.length) {
      throw new OutOfRangeError('weights', `${ids.length} entries`, weights.length)
    }
    if (unitOffsets !== undefined) requireRising(unitOffsets, labels.length)
    this.ids = ids
    if (weights !== undefined) this.weights = weights
    this.offsets = offsets
    this.labels = labels
    if (unitOffsets !== undefined) this.unitOffsets = unitOffsets
  }

  /** Number of units, N. */
  get length(): number {
    return this.unitOffsets === undefined ? this.labels.length : this.unitOffsets.length - 1
  }

  /** Rows of one unit. */
  rowsOf(unit: number): number {
    const [first, end] = this.#sequencesOf(unit)
    return this.offsets[end]! - this.offsets[first]!
  }

  /** Rows of each of the units given [B]: what `splitIntoMicroBatches` takes. */
  lengthsOf(units: ArrayLike<number>): Int32Array {
    return Int32Array.from(units, (unit) => this.rowsOf(unit))
  }

  /** Class index of each sequence of the units given [sequences of the batch]. */
  labelsOf(units: ArrayLike<number>): Int32Array {
    return Int32Array.from(Array.from(units, (unit) => [...this.labels.subarray(...this.#sequencesOf(unit))]).flat())
  }

  /** One unit, as views of this data set's memory. */
  unit(unit: number): EncodedUnit {
    const [first, last] = this.#sequencesOf(unit)
    const [start, end] = [this.offsets[first]!, this.offsets[last]!]
    const encoded: EncodedUnit = { ids: this.ids.subarray(start, end), unit }
    if (this.unitOffsets !== undefined) {
      encoded.sequences = this.offsets.slice(first + 1, last + 1).map((bound, i) => bound - this.offsets[first + i]!)
    }
    if (this.weights !== undefined) encoded.weights = this.weights.subarray(start, end)
    return encoded
  }

  /** The units given, packed in that order. No units give an empty batch. */
  batch(units: ArrayLike<number>): PackedBatch {
    const batch = packBatch(Array.from(units, (unit) => this.unit(unit)))
    if (this.weights !== undefined) batch.weights ??= new Float32Array(0)
    return batch
  }

  /** The units given as a data set of its own, numbered from 0 in that order. */
  subset(units: ArrayLike<number>): Dataset {
    const { ids, weights, offsets, sequenceOffsets, unitSequences } = this.batch(units)
    const arrays: DatasetArrays = { ids, offsets: sequenceOffsets ?? offsets, labels: this.labelsOf(units) }
    if (unitSequences !== undefined) arrays.unitOffsets = unitSequences
    if (weights !== undefined) arrays.weights = weights
    return new Dataset(arrays)
  }

  /** SHA-256 in hex of all that training reads: ids, weights, offsets and classes. Equal data have equal fingerprints. */
  fingerprint(): string {
    if (this.#fingerprint === undefined) {
      const hash = createHash('sha256')
      const grouping = this.unitOffsets === undefined ? [] : [this.unitOffsets]
      for (const array of [this.offsets, this.labels, this.ids, this.weights, ...grouping]) {
        hash.update(`${array?.constructor.name} ${array?.length};`)
        if (array !== undefined) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
      }
      this.#fingerprint = hash.digest('hex')
    }
    return this.#fingerprint
  }

  /** First and past the last sequence of a unit. */
  #sequencesOf(unit: number): [number, number] {
    if (!Number.isInteger(unit) || unit < 0 || unit >= this.length) {
      throw new OutOfRangeError('unit', `an integer from 0 to ${this.length - 1}`, unit)
    }
    return this.unitOffsets === undefined ? [unit, unit + 1] : [this.unitOffsets[unit]!, this.unitOffsets[unit + 1]!]
  }
}

function requireRising(unitOffsets: Int32Array, sequences: number): void {
  const rises = unitOffsets.every((bound, i) => (i === 0 ? bound === 0 : bound >= unitOffsets[i - 1]!))
  if (rises && unitOffsets.at(-1) === sequences) return
  throw new OutOfRangeError('unitOffsets', `a rising run from 0 to ${sequences}`, `[${unitOffsets.join(', ')}]`)
}

export interface EncodeOptions {
  /** Encodes texts as bags ({@link bagOf}); without it they are sequences of ids. */
  bag?: BagOptions
  /** First text of each unit, and the number of texts; without it every text is a unit. */
  unitOffsets?: Int32Array
  /** Stops the work between texts; the promise rejects with the signal's reason. */
  signal?: AbortSignal
}

/** Time a run of encoding may hold the event loop. */
const TURN_MILLISECONDS = 10

/**
 * Encodes texts into a data set, giving other work its turn every few milliseconds.
 *
 * @param labels class index of each text [N], from 0
 * @param options.unitOffsets groups consecutive texts into units
 */
export async function encodeDataset(
  texts: readonly string[],
  labels: ArrayLike<number>,
  tokenizer: Tokenizer,
  options: EncodeOptions = {},
): Promise<Dataset> {
  if (labels.length !== texts.length) throw new OutOfRangeError('labels', `${texts.length} entries`, labels.length)
  const encode = (index: number) => ({ ...encodeUnit(texts[index]!, index, tokenizer, options), label: labels[index]! })
  return collectDataset(texts.length, encode, options)
}

/** A sequence of a data set. */
export interface EncodedSequence {
  ids: Int32Array
  weights?: Float32Array
  label: number
}

/** Collects `count` encoded sequences, giving other work its turn every few milliseconds. */
export async function collectDataset(
  count: number,
  encode: (index: number) => EncodedSequence,
  options: EncodeOptions = {},
): Promise<Dataset> {
  options.signal?.throwIfAborted()
  const ids = new GrowingArray<Int32Array>((length) => new Int32Array(length))
  const weights =
    options.bag === undefined ? undefined : new GrowingArray<Float32Array>((length) => new Float32Array(length))
  const offsets = new Int32Array(count + 1)
  const labels = new Int32Array(count)
  let turnEnds = performance.now() + TURN_MILLISECONDS
  for (let index = 0; index < count; index++) {
    const sequence = encode(index)
    ids.pushAll(sequence.ids)
    if (sequence.weights !== undefined) weights?.pushAll(sequence.weights)
    if (ids.length > 0x7fffffff) throw new OutOfRangeError('the data set', 'at most 2^31 - 1 rows', ids.length)
    offsets[index + 1] = ids.length
    labels[index] = sequence.label
    if (performance.now() > turnEnds) {
      await new Promise(setImmediate)
      options.signal?.throwIfAborted()
      turnEnds = performance.now() + TURN_MILLISECONDS
    }
  }
  const arrays: DatasetArrays = { ids: ids.toArray(), offsets, labels }
  if (weights !== undefined) arrays.weights = weights.toArray()
  if (options.unitOffsets !== undefined) arrays.unitOffsets = options.unitOffsets
  return new Dataset(arrays)
}

/** One text as a unit: a sequence of ids, or a bag. */
export function encodeUnit(
  text: string,
  unit: number,
  tokenizer: Tokenizer,
  options: Pick<EncodeOptions, 'bag'> = {},
): EncodedUnit {
  const ids = tokenizer.encode(text)
  return options.bag === undefined ? { ids, unit } : { ...bagOf(ids, options.bag), unit }
}
