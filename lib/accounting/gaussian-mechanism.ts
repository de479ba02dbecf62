import erfcx from '@stdlib/math-base-special-erfcx'
import { OutOfRangeError } from '../errors.js'
import { normalUpperTail } from './mixture-pair.js'
import { MAX_NOISE_MULTIPLIER, requireDelta, requireEpsilon, requireNoiseMultiplier } from './numbers.js'

/**
 * delta of one Gaussian release at epsilon, exactly (Balle, Wang, arXiv 1805.06530, Theorem 8): Phi(mu / 2 - epsilon / mu)
 * - e^epsilon Phi(-mu / 2 - epsilon / mu) with mu = sensitivity / noiseMultiplier.
 *
 * @param sensitivity how far one unit moves the sum, in units of C: 1, or 2 under replace-one.
 * @throws OutOfRangeError when an argument is outside its range.
 */
export function gaussianDelta(noiseMultiplier: number, epsilon: number, sensitivity = 1): number {
  return deltaOfGaussians(
    requireSensitivity(sensitivity) / requireNoiseMultiplier(noiseMultiplier),
    requireEpsilon(epsilon),
  )
}

/** epsilon of one Gaussian release at delta, exactly; 0 where delta is above what it has at epsilon 0. */
export function gaussianEpsilon(noiseMultiplier: number, delta: number, sensitivity = 1): number {
  return epsilonOfGaussians(
    requireSensitivity(sensitivity) / requireNoiseMultiplier(noiseMultiplier),
    requireDelta(delta),
  )
}

/** epsilon at delta for two Gaussians `mu` standard deviations apart. */
export function epsilonOfGaussians(mu: number, delta: number): number {
  if (deltaOfGaussians(mu, 0) <= delta) return 0
  let high = mu * mu + mu
  while (deltaOfGaussians(mu, high) > delta) high *= 2
  return bisect((epsilon) => deltaOfGaussians(mu, epsilon) <= delta, 0, high)
}

/** The least noise multiplier whose single Gaussian release is (epsilon, delta)-DP. */
export function gaussianNoiseMultiplier(epsilon: number, delta: number, sensitivity = 1): number {
  requireEpsilon(epsilon)
  requireDelta(delta)
  requireSensitivity(sensitivity)
  const holds = (sigma: number) => deltaOfGaussians(sensitivity / sigma, epsilon) <= delta
  let high = 1
  while (!holds(high)) {
    if (high > MAX_NOISE_MULTIPLIER * sensitivity) {
      throw new OutOfRangeError('epsilon', 'a value that some noise multiplier below 1e6 keeps', epsilon)
    }
    high *= 2
  }
  return bisect(holds, 0, high)
}

/** delta at epsilon for two Gaussians `mu` standard deviations apart. */
export function deltaOfGaussians(mu: number, epsilon: number): number {
  const a = epsilon / mu - mu / 2
  const b = epsilon / mu + mu / 2
  // A tail is a density times a Mills ratio, and e^epsilon turns the density at b into that at a.
  const density = 0.5 * Math.exp(-0.5 * a * a)
  if (a < 0) return Math.max(0, normalUpperTail(a) - density * erfcx(b * Math.SQRT1_2))
  return Math.max(0, density * (erfcx(a * Math.SQRT1_2) - erfcx(b * Math.SQRT1_2)))
}

/** The least argument in (low, high] where `holds`, which turns true once. */
function bisect(holds: (argument: number) => boolean, low: number, high: number): number {
  let [a, b] = [low, high]
  for (let iteration = 0; iteration < 200 && b - a > 1e-15 * b; iteration++) {
    const middle = 0.5 * (a + b)
    if (holds(middle)) b = middle
    else a = middle
  }
  return b
}

function requireSensitivity(value: number): number {
  if (!(value > 0 && value < 1e12)) throw new OutOfRangeError('sensitivity', 'a number in (0, 1e12)', value)
  return value
}
