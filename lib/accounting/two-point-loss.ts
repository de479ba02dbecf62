import { type Cumulants, cumulants } from './log-moment.js'
import type { LossLattice } from './loss-lattice.js'
import type { LossModel, TruncatedModel } from './loss-model.js'

/**
 * The worst loss of an (epsilon, delta) guarantee: infinite with probability delta, else +epsilon or -epsilon as in
 * randomised response (Kairouz, Oh, Viswanath, arXiv 1311.0776).
 */
export class TwoPointLoss implements LossModel, TruncatedModel {
  readonly lowest: number
  readonly highest: number
  readonly infinite: number
  readonly #masses: Float64Array

  constructor(epsilon: number, delta: number) {
    this.lowest = -epsilon
    this.highest = epsilon
    this.infinite = delta
    this.#masses = Float64Array.of((1 - delta) / (1 + Math.exp(epsilon)), (1 - delta) / (1 + Math.exp(-epsilon)))
  }

  truncate(): TruncatedModel {
    return this
  }

  /** Of the finite part, as a distribution of its own. */
  logMoment(alpha: number): number {
    return this.cumulants(alpha - 1).value - Math.log1p(-this.infinite)
  }

  cumulants(theta: number): Cumulants {
    return cumulants(Float64Array.of(this.lowest, this.highest), this.#masses, theta)
  }

  lattice(_theta: number, interval: number, _growth: number): LossLattice {
    const span = this.highest - this.lowest
    const cells = Math.floor(span / interval)
    const [low, high] = [this.#masses[0]!, this.#masses[1]!]
    // -epsilon is a lattice point; +epsilon lies in a cell, and is split from above, rounded down from below.
    const toEnd = Math.expm1(cells * interval - span) / Math.expm1(-interval)
    const upper = Float64Array.of(low, high * (1 - toEnd), high * toEnd)
    const lower = Float64Array.of(low, high, 0)
    const indices = Float64Array.of(0, cells, cells + 1)
    return { origin: this.lowest, interval, indices, upper, lower, infinite: this.infinite }
  }
}
