import type { MixturePair } from './mixture-pair.js'
import { RULE } from './quadrature.js'

/** The cumulant generating function of a privacy loss at one order, with its first two derivatives. */
export interface Cumulants {
  /** log E_P e^(theta L). */
  readonly value: number
  /** Mean of L under the measure tilted by e^(theta L). */
  readonly mean: number
  /** Variance of L under that measure. */
  readonly variance: number
}

/** A measure on losses, as atoms. */
export interface LossAtoms {
  readonly losses: Float64Array
  readonly masses: Float64Array
}

/**
 * The loss of one release for x in [low, high], as quadrature atoms: a cheap, accurate stand-in for choosing the tilt, the
 * window and the lattice. No bound rests on it.
 */
export function lossAtoms(pair: MixturePair, low: number, high: number): LossAtoms {
  const panels = Math.max(1, Math.ceil((high - low) / (0.5 * pair.scale)))
  const half = (high - low) / panels / 2
  const order = RULE.nodes.length
  const losses = new Float64Array(panels * order)
  const masses = new Float64Array(panels * order)
  for (let panel = 0; panel < panels; panel++) {
    const middle = low + (2 * panel + 1) * half
    for (let k = 0; k < order; k++) {
      const x = middle + half * RULE.nodes[k]!
      losses[panel * order + k] = pair.loss(x)
      masses[panel * order + k] = RULE.weights[k]! * half * pair.density(x)
    }
  }
  return { losses, masses }
}

/** log of the moment of e^L of order theta, of a measure given as atoms. */
export function logMomentOf(losses: Float64Array, masses: Float64Array, theta: number): number {
  let largest = Number.NEGATIVE_INFINITY
  for (let i = 0; i < losses.length; i++) {
    if (masses[i]! > 0 && theta * losses[i]! > largest) largest = theta * losses[i]!
  }
  let total = 0
  for (let i = 0; i < losses.length; i++) {
    const exponent = theta * losses[i]! - largest
    if (masses[i]! > 0) total += masses[i]! * Math.exp(exponent)
  }
  return largest + Math.log(total)
}

/** Cumulants of a measure given as atoms. */
export function cumulants(losses: Float64Array, masses: Float64Array, theta: number): Cumulants {
  let largest = Number.NEGATIVE_INFINITY
  for (let i = 0; i < losses.length; i++) {
    if (masses[i]! > 0 && theta * losses[i]! > largest) largest = theta * losses[i]!
  }
  let total = 0
  let first = 0
  for (let i = 0; i < losses.length; i++) {
    const weight = masses[i]! * Math.exp(theta * losses[i]! - largest)
    total += weight
    first += weight * losses[i]!
  }
  const mean = first / total
  let second = 0
  for (let i = 0; i < losses.length; i++) {
    const deviation = losses[i]! - mean
    second += masses[i]! * Math.exp(theta * losses[i]! - largest) * deviation * deviation
  }
  return { value: largest + Math.log(total), mean, variance: second / total }
}
