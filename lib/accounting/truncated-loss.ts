import { DIRECT } from './blocks.js'
import type { Cumulants } from './log-moment.js'
import type { LossModel, TruncatedModel } from './loss-model.js'

/** A loss and how often it is drawn. */
export interface CountedLoss {
  readonly model: LossModel
  readonly count: number
}

/** One of the losses of a composition, cut off at both ends. */
export interface TruncatedPart {
  readonly model: TruncatedModel
  readonly count: number
}

/** All losses of a composition, with `tail` mass cut off at either end of each. */
export class TruncatedLoss {
  readonly parts: readonly TruncatedPart[]

  constructor(losses: readonly CountedLoss[], tail: number) {
    this.parts = losses.map(({ model, count }) => ({ model: model.truncate(tail), count }))
  }

  /** The largest sum of losses that was not cut off. */
  get highest(): number {
    return this.parts.reduce((sum, part) => sum + part.count * part.model.highest, 0)
  }

  /**
   * Lattice points that composing in blocks needs, for one point per standard deviation of a release: the first block is
   * as wide as the largest loss, the last as DIRECT draws.
   */
  blockPoints(theta: number): number {
    const widths = this.parts.map(({ model }) => {
      return (model.highest - model.lowest) / Math.sqrt(model.cumulants(theta).variance)
    })
    return Math.max(15 * Math.sqrt(DIRECT), ...widths)
  }

  /** Cumulants of the sum of all losses. */
  cumulants(theta: number): Cumulants {
    let [value, mean, variance] = [0, 0, 0]
    for (const { model, count } of this.parts) {
      const one = model.cumulants(theta)
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
