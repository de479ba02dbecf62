import { createHash } from 'node:crypto'
import { OutOfRangeError } from '../errors.js'
import { type BagOptions, bagOf } from './bag.js'
import { GrowingArray } from './growing-array.js'
import { type EncodedUnit, type PackedBatch, packBatch } from './packing.js'
import type { Tokenizer } from './tokenizer.js'

/** The memory of a {@link Dataset}: N units, R rows in all. */
export interface DatasetArrays {
  /** Token id of each row [R]. */
  ids: Int32Array
  /** Weight of each row [R]; absent where the units are sequences. */
  weights?: Float32Array
  /** First row of each unit, and R [N + 1]. */
  offsets: Int32Array
  /** Class index of each unit [N]. */
  labels: Int32Array
}

/** Encoded units with their classes, held in a few typed arrays: four bytes a row and eight a unit (bags: eight a row). */
export class Dataset implements DatasetArrays {
  readonly ids: Int32Array
  readonly weights?: Float32Array
  readonly offsets: Int32Array
  readonly labels: Int32Array
  #fingerprint: string | undefined

  /** @throws RangeError when the arrays' lengths do not fit together */
  constructor(arrays: DatasetArrays) {
    const { ids, weights, offsets, labels } = arrays
    if (offsets.length !== labels.length + 1) {
      throw new OutOfRangeError('offsets', `${labels.length + 1} entries`, offsets.length)
    }
    if (offsets[0] !== 0 || offsets[labels.length] !== ids.length) {
      throw new OutOfRangeError('offsets', `a run from 0 to ${ids.length}`, `${offsets[0]} to ${offsets.at(-1)}`)
    }
    if (weights !== undefined && weights.length !== ids.length) {
      throw new OutOfRangeError('weights', `${ids.length} entries`, weights.length)
    }
    this.ids = ids
    if (weights !== undefined) this.weights = weights
    this.offsets = offsets
    this.labels = labels
  }

  /** Number of units, N. */
  get length(): number {
    return this.labels.length
  }

  /** Rows of one unit. */
  rowsOf(unit: number): number {
    this.#requireUnit(unit)
    return this.offsets[unit + 1]! - this.offsets[unit]!
  }

  /** Rows of each of the units given [B]: what `splitIntoMicroBatches` takes. */
  lengthsOf(units: ArrayLike<number>): Int32Array {
    return Int32Array.from(units, (unit) => this.rowsOf(unit))
  }

  /** Class index of each of the units given [B]. */
  labelsOf(units: ArrayLike<number>): Int32Array {
    return Int32Array.from(units, (unit) => {
      this.#requireUnit(unit)
      return this.labels[unit]!
    })
  }

  /** One unit, as views of this data set's memory. */
  unit(unit: number): EncodedUnit {
    this.#requireUnit(unit)
    const [start, end] = [this.offsets[unit]!, this.offsets[unit + 1]!]
    const encoded: EncodedUnit = { ids: this.ids.subarray(start, end), unit }
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
    const { ids, weights, offsets } = this.batch(units)
    const arrays: DatasetArrays = { ids, offsets, labels: this.labelsOf(units) }
    if (weights !== undefined) arrays.weights = weights
    return new Dataset(arrays)
  }

  /** SHA-256 in hex of all that training reads: ids, weights, offsets and classes. Equal data have equal fingerprints. */
  fingerprint(): string {
    if (this.#fingerprint === undefined) {
      const hash = createHash('sha256')
      for (const array of [this.offsets, this.labels, this.ids, this.weights]) {
        hash.update(`${array?.constructor.name} ${array?.length};`)
        if (array !== undefined) hash.update(new Uint8Array(array.buffer, array.byteOffset, array.byteLength))
      }
      this.#fingerprint = hash.digest('hex')
    }
    return this.#fingerprint
  }

  #requireUnit(unit: number): void {
    if (!Number.isInteger(unit) || unit < 0 || unit >= this.length) {
      throw new OutOfRangeError('unit', `an integer from 0 to ${this.length - 1}`, unit)
    }
  }
}

export interface EncodeOptions {
  /** Encodes texts as bags ({@link bagOf}); without it they are sequences of ids. */
  bag?: BagOptions
  /** Stops the work between texts; the promise rejects with the signal's reason. */
  signal?: AbortSignal
}

/** Time a run of encoding may hold the event loop. */
const TURN_MILLISECONDS = 10

/**
 * Encodes texts into a data set, giving other work its turn every few milliseconds.
 *
 * @param labels class index of each text [N], from 0
 */
export async function encodeDataset(
  texts: readonly string[],
  labels: ArrayLike<number>,
  tokenizer: Tokenizer,
  options: EncodeOptions = {},
): Promise<Dataset> {
  options.signal?.throwIfAborted()
  if (labels.length !== texts.length) throw new OutOfRangeError('labels', `${texts.length} entries`, labels.length)
  const ids = new GrowingArray<Int32Array>((length) => new Int32Array(length))
  const weights =
    options.bag === undefined ? undefined : new GrowingArray<Float32Array>((length) => new Float32Array(length))
  const offsets = new Int32Array(texts.length + 1)
  let turnEnds = performance.now() + TURN_MILLISECONDS
  for (const [index, text] of texts.entries()) {
    const unit = encodeUnit(text, index, tokenizer, options)
    ids.pushAll(unit.ids)
    if (unit.weights !== undefined) weights?.pushAll(unit.weights)
    if (ids.length > 0x7fffffff) throw new OutOfRangeError('the data set', 'at most 2^31 - 1 rows', ids.length)
    offsets[index + 1] = ids.length
    if (performance.now() > turnEnds) {
      await new Promise(setImmediate)
      options.signal?.throwIfAborted()
      turnEnds = performance.now() + TURN_MILLISECONDS
    }
  }
  const arrays: DatasetArrays = { ids: ids.toArray(), offsets, labels: Int32Array.from(labels) }
  if (weights !== undefined) arrays.weights = weights.toArray()
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
