import type { EncodedUnit } from './packing.js'

/** How often an id occurs (n) becomes its weight: n, log(1 + n), or 1. */
export type BagWeighting = 'count' | 'log' | 'binary'

export interface BagOptions {
  /** Default 'log'. */
  weighting?: BagWeighting
  /** Whether the weights are divided by their L2 norm; default true. */
  normalise?: boolean
}

/**
 * A text as a bag: its distinct ids in ascending order, one weight each. No ids give no rows.
 *
 * @param ids token ids in any order
 */
export function bagOf(ids: Int32Array, options: BagOptions = {}): Pick<EncodedUnit, 'ids'> & { weights: Float32Array } {
  const weighting = options.weighting ?? 'log'
  const sorted = ids.slice().sort()
  const distinct = new Int32Array(sorted.length)
  const weights = new Float32Array(sorted.length)
  let length = 0
  let sumOfSquares = 0
  for (let start = 0; start < sorted.length; length++) {
    let end = start + 1
    while (end < sorted.length && sorted[end] === sorted[start]) end++
    const weight = weightOf(end - start, weighting)
    distinct[length] = sorted[start]!
    weights[length] = weight
    sumOfSquares += weight * weight
    start = end
  }
  if (options.normalise ?? true) {
    const norm = Math.sqrt(sumOfSquares)
    for (let row = 0; row < length; row++) weights[row]! /= norm
  }
  return { ids: distinct.slice(0, length), weights: weights.slice(0, length) }
}

function weightOf(count: number, weighting: BagWeighting): number {
  if (weighting === 'binary') return 1
  return weighting === 'log' ? Math.log1p(count) : count
}
