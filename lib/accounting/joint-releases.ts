import { OutOfRangeError } from '../errors.js'
import { requireNoiseMultiplier } from './numbers.js'

/** One of several sums over the same batch that share a step's Gaussian. */
export interface Release {
  readonly name: string
  /** L2 bound of one unit's contribution. */
  readonly bound: number
  /** Share of the step's budget; all shares sum to 1. */
  readonly weight: number
}

/** A release with the standard deviation of its noise. */
export interface NoisyRelease extends Release {
  readonly standardDeviation: number
}

/**
 * Noise for releases that are made together: group i gets standard deviation noiseMultiplier * bound_i / sqrt(weight_i).
 *
 * Guarantee: all of them together are one Gaussian release with `noiseMultiplier`, whatever the weights, because the
 * joint sum, scaled group by group by its noise, moves by sqrt(sum of weights) / noiseMultiplier = 1 / noiseMultiplier.
 * Accounting them apart, each with its own noise multiplier, would be wrong: one unit moves all of them at once.
 *
 * @throws OutOfRangeError when a bound is not positive or the weights are negative or do not sum to 1.
 */
export function jointReleases(noiseMultiplier: number, releases: readonly Release[]): NoisyRelease[] {
  requireNoiseMultiplier(noiseMultiplier)
  const total = releases.reduce((sum, { weight }) => sum + weight, 0)
  if (!releases.every(({ weight }) => weight > 0) || !(Math.abs(total - 1) < 1e-9)) {
    const weights = releases.map(({ weight }) => weight).join(', ')
    throw new OutOfRangeError('weight', 'positive numbers that sum to 1', weights)
  }
  return releases.map((release) => ({
    ...release,
    standardDeviation: (noiseMultiplier * requireBound(release.bound)) / Math.sqrt(release.weight),
  }))
}

/**
 * The noise multiplier of the one Gaussian that several releases of the same step amount to:
 * (sum (bound_i / standardDeviation_i)^2)^(-1/2).
 */
export function effectiveNoiseMultiplier(
  releases: readonly { readonly bound: number; readonly standardDeviation: number }[],
): number {
  const sum = releases.reduce((total, { bound, standardDeviation }) => {
    if (!(standardDeviation > 0)) throw new OutOfRangeError('standardDeviation', 'a positive number', standardDeviation)
    return total + (requireBound(bound) / standardDeviation) ** 2
  }, 0)
  if (sum === 0) throw new OutOfRangeError('releases', 'at least one release', releases.length)
  return 1 / Math.sqrt(sum)
}

/**
 * Adaptive clipping (Andrew et al., arXiv 1905.03871, Theorem 1): the gradient's noise multiplier that leaves room for
 * the clip count. The count's bits are centred, hence of bound 1 / 2: z_gradient = (z^-2 - (2 countDeviation)^-2)^(-1/2).
 *
 * @throws OutOfRangeError unless noiseMultiplier < 2 countDeviation.
 */
export function adaptiveClippingNoiseMultiplier(noiseMultiplier: number, countDeviation: number): number {
  requireNoiseMultiplier(noiseMultiplier)
  if (!(2 * countDeviation > noiseMultiplier)) {
    throw new OutOfRangeError(
      'countDeviation',
      `more than noiseMultiplier / 2 = ${noiseMultiplier / 2}`,
      countDeviation,
    )
  }
  return 1 / Math.sqrt(noiseMultiplier ** -2 - (2 * countDeviation) ** -2)
}

function requireBound(bound: number): number {
  if (!(bound > 0 && bound < Number.POSITIVE_INFINITY)) throw new OutOfRangeError('bound', 'a positive number', bound)
  return bound
}
