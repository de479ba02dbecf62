import { OutOfRangeError } from '../errors.js'
import type { DeltaBounds } from './accountant.js'
import { zcdp } from './event-builders.js'
import { requireCount, requireEpsilon, requireNoiseMultiplier } from './numbers.js'
import { RdpAccountant } from './rdp.js'

/** rho of one Gaussian release: sensitivity^2 / (2 noiseMultiplier^2), the sensitivity in units of C. */
export function gaussianRho(noiseMultiplier: number, sensitivity = 1): number {
  const ratio = sensitivity / requireNoiseMultiplier(noiseMultiplier)
  return (ratio * ratio) / 2
}

/** epsilon at delta of any rho-zCDP mechanism, by its Renyi divergence rho alpha. */
export function zcdpEpsilon(rho: number, delta: number): number {
  return new RdpAccountant().compose(zcdp(rho)).epsilon(delta).epsilon
}

/** delta at epsilon of any rho-zCDP mechanism. */
export function zcdpDelta(rho: number, epsilon: number): number {
  return new RdpAccountant().compose(zcdp(rho)).delta(epsilon).delta
}

/** What an (epsilon, delta) guarantee for one unit says of a group of `size` units. */
export interface GroupGuarantee {
  readonly epsilon: number
  readonly delta: number
}

/**
 * Group privacy: k units are protected with k epsilon and delta (e^(k epsilon) - 1) / (e^epsilon - 1), for instance when a
 * record occurs k times.
 *
 * Any (epsilon, delta) curve is best turned at epsilon / k: see `groupDelta`.
 */
export function groupPrivacy(epsilon: number, delta: number, size: number): GroupGuarantee {
  requireEpsilon(epsilon)
  if (!(delta >= 0 && delta <= 1)) throw new OutOfRangeError('delta', 'a number in [0, 1]', delta)
  requireCount(size, 'size', 1)
  const factor = epsilon === 0 ? size : Math.expm1(size * epsilon) / Math.expm1(epsilon)
  return { epsilon: size * epsilon, delta: delta === 0 ? 0 : Math.min(1, factor * delta) }
}

/** delta at `epsilon` for a group of `size` units, from an accountant's curve for one. */
export function groupDelta(accountant: { delta(epsilon: number): DeltaBounds }, epsilon: number, size: number): number {
  requireEpsilon(epsilon)
  requireCount(size, 'size', 1)
  return groupPrivacy(epsilon / size, accountant.delta(epsilon / size).delta, size).delta
}
