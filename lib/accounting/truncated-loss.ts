import { DIRECT } from './blocks.js'
import { type Cumulants, LossAtoms } from './log-moment.js'
import { discretise, type LossLattice } from './loss-lattice.js'
import type { MixturePair } from './mixture-pair.js'

/** A pair and how often its loss is drawn. */
export interface CountedPair {
  readonly pair: MixturePair
  readonly count: number
}

/** The losses of all pairs, with `tail` mass cut off at either end of each. */
export class TruncatedLoss {
  readonly parts: readonly TruncatedPart[]

  constructor(pairs: readonly CountedPair[], tail: number) {
    this.parts = pairs.map(({ pair, count }) => new TruncatedPart(pair, count, tail))
  }

  /** The largest sum of losses that was not cut off. */
  get highest(): number {
    return this.parts.reduce((sum, part) => sum + part.count * part.highest, 0)
  }

  /**
   * Lattice points that composing in blocks needs, for one point per standard deviation of a release: the first block is
   * as wide as the largest loss, the last as DIRECT draws.
   */
  blockPoints(theta: number): number {
    const widths = this.parts.map(({ atoms, highest, lowest }) => {
      return (highest - lowest) / Math.sqrt(atoms.cumulants(theta).variance)
    })
    return Math.max(15 * Math.sqrt(DIRECT), ...widths)
  }

  /** Cumulants of the sum of all losses. */
  cumulants(theta: number): Cumulants {
    let [value, mean, variance] = [0, 0, 0]
    for (const { atoms, count } of this.parts) {
      const one = atoms.cumulants(theta)
      value += count * one.value
      mean += count * one.mean
      variance += count * one.variance
    }
    return { value, mean, variance }
  }

  /**
   * The tilt theta >= 0 at which an increasing function of the tilted cumulants turns positive. The search starts at
   * `deviations` over the standard deviation.
   */
  solve(excess: (cumulants: Cumulants, theta: number) => number, deviations: number): number {
    const value = (theta: number) => excess(this.cumulants(theta), theta)
    let high = deviations / Math.sqrt(this.cumulants(0).variance)
    let low = 0
    for (let i = 0; value(high) < 0; i++) {
      if (i === 60) return high
      low = high
      high *= 2
    }
    for (let i = 0; low === 0; i++) {
      if (i === 60) return 0
      if (value(high / 4) < 0) low = high / 4
      else high /= 4
    }
    while (high > 1.01 * low) {
      const middle = Math.sqrt(low * high)
      if (value(middle) < 0) low = middle
      else high = middle
    }
    return low
  }
}

/** One pair's loss between two quantiles. */
export class TruncatedPart {
  readonly pair: MixturePair
  readonly count: number
  readonly atoms: LossAtoms
  readonly lowest: number
  readonly highest: number
  readonly #low: number
  readonly #high: number

  constructor(pair: MixturePair, count: number, tail: number) {
    this.pair = pair
    this.count = count
    this.#low = pair.lowerQuantile(tail)
    this.#high = pair.upperQuantile(tail)
    this.lowest = pair.loss(this.#low)
    this.highest = pair.loss(this.#high)
    this.atoms = new LossAtoms(pair, this.#low, this.#high)
  }

  /** The loss on a lattice, with cells that grow to `growth` times the distance from the tilted mean. */
  lattice(theta: number, interval: number, growth: number): LossLattice {
    const centre = this.atoms.cumulants(theta).mean
    const widest = Math.max(interval, Math.min(1, (4 * growth) / theta))
    return discretise(this.pair, this.#low, this.#high, { interval, growth, centre, widest })
  }
}
