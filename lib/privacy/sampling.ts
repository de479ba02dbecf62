import { createCipheriv } from 'node:crypto'
import { poissonSample } from '../engine/random.js'
import { OutOfRangeError } from '../errors.js'
import type { RunKey } from './keys.js'

/** How batches are drawn; an accountant accepts only what it can account for. */
export interface BatchSampler {
  readonly kind: 'poisson' | 'shuffle'
  /** Number of units. */
  readonly population: number
  /** Probability that a unit is in a batch (poisson), or the fraction of units in a batch (shuffle). */
  readonly sampleRate: number
  /** Data set positions of the units in the batch of a step, rising (poisson). */
  sample(step: number): Int32Array
}

/**
 * Poisson sampling as a pure function: unit u is in the batch of a step when ChaCha20(key; step, u) < sampleRate.
 *
 * Guarantee. Inclusions are independent over units and steps, each with probability `sampleRate`; the batch of a step does
 * not depend on what was drawn before, so there is no state to save, to share between ranks or to get wrong on resume.
 *
 * | case | batch |
 * |---|---|
 * | sampleRate 1 | every unit |
 * | sampleRate near 0 | often empty: a step like any other |
 * | population 0 | empty |
 */
export class PoissonSampler implements BatchSampler {
  readonly kind = 'poisson'

  constructor(
    readonly key: RunKey,
    readonly population: number,
    readonly sampleRate: number,
  ) {
    if (!(sampleRate > 0 && sampleRate <= 1)) throw new OutOfRangeError('sampleRate', 'a number in (0, 1]', sampleRate)
    if (!(Number.isInteger(population) && population >= 0 && population < 2 ** 31)) {
      throw new OutOfRangeError('population', 'an integer in [0, 2^31)', population)
    }
  }

  sample(step: number): Int32Array {
    return poissonSample(this.key.bytes, step, this.population, this.sampleRate)
  }
}

/**
 * Batches of a shuffled pass over the data, for training without privacy. Its batches have no amplification that the
 * accountants here know of, so private training refuses it.
 */
export class ShuffleSampler implements BatchSampler {
  readonly kind = 'shuffle'
  readonly sampleRate: number
  readonly #order: Int32Array
  #epoch = -1

  constructor(
    readonly population: number,
    readonly batchSize: number,
    readonly key: RunKey,
  ) {
    if (!(Number.isInteger(batchSize) && batchSize >= 1)) {
      throw new OutOfRangeError('batchSize', 'an integer >= 1', batchSize)
    }
    this.sampleRate = Math.min(1, batchSize / population)
    this.#order = Int32Array.from({ length: population }, (_, unit) => unit)
  }

  get stepsPerEpoch(): number {
    return Math.max(1, Math.ceil(this.population / this.batchSize))
  }

  sample(step: number): Int32Array {
    const epoch = Math.floor(step / this.stepsPerEpoch)
    if (epoch !== this.#epoch) this.#shuffle(epoch)
    const first = (step % this.stepsPerEpoch) * this.batchSize
    return this.#order.slice(first, first + this.batchSize)
  }

  /** Fisher-Yates from the identity: the order of an epoch depends on the key and the epoch's number only. */
  #shuffle(epoch: number): void {
    this.#epoch = epoch
    const order = this.#order
    const random = randomWords(this.key, epoch, order.length)
    for (let i = 0; i < order.length; i++) order[i] = i
    for (let i = order.length - 1; i > 0; i--) {
      const j = Math.floor((random[i]! / 2 ** 32) * (i + 1))
      ;[order[i], order[j]] = [order[j]!, order[i]!]
    }
  }
}

/** 32-bit words of an AES-CTR stream keyed by the run and the epoch. */
function randomWords(key: RunKey, epoch: number, count: number): Uint32Array {
  const counter = Buffer.alloc(16)
  counter.write('shuffle', 'latin1')
  counter.writeUInt32LE(epoch, 8)
  const bytes = createCipheriv('aes-256-ctr', key.bytes, counter).update(Buffer.alloc(4 * count))
  return new Uint32Array(new Uint8Array(bytes).buffer)
}
