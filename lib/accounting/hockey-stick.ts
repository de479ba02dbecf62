import type { Composed, Dense } from './self-convolution.js'

/** What a hockey-stick curve has to allow for. */
export interface Allowance {
  /** Mass whose loss counts as infinite from above, and mass whose loss is infinite by nature. */
  readonly infinite: { readonly upper: number; readonly lower: number }
  /** Bound on the error in total variation under the tilted measure. */
  readonly error: number
  /** Bound on the relative error of every mass. */
  readonly relative: number
  /** log of what every mass has to be multiplied by. */
  readonly logScale: number
}

/** The curve delta(eps) of a composed loss, linear in e^eps between lattice points: a bound from above or from below. */
export class HockeyStick {
  /** The smallest loss of the window. */
  readonly lowest: number
  readonly #dense: Dense
  readonly #theta: number
  readonly #interval: number
  readonly #logScale: number
  readonly #infinite: number
  readonly #error: number

  constructor(composed: Composed, bound: 'upper' | 'lower', allowance: Allowance) {
    const sign = bound === 'upper' ? 1 : -1
    this.#dense = composed[bound]
    this.#theta = composed.theta
    this.#interval = composed.interval
    this.lowest = composed.origin + this.#dense.first * composed.interval
    this.#logScale = this.#dense.logScale + allowance.logScale + sign * allowance.relative
    this.#infinite = allowance.infinite[bound]
    // A tilted mass at loss S adds (1 - e^(eps - S)) e^(-theta S) to delta, at most e^(-theta eps) / (e theta).
    this.#error = sign * allowance.error * Math.min(1, 1 / (Math.E * this.#theta))
  }

  /** The smallest eps >= 0 with delta(eps) <= delta, or undefined when it lies below the window. */
  epsilon(delta: number): number | undefined {
    const step = -Math.expm1(-this.#interval)
    const decay = Math.exp(-this.#interval)
    const target = delta - this.#infinite
    if (target <= 0) return Number.POSITIVE_INFINITY
    let height = 0
    let slope = 0
    const top = this.#dense.tilted.length - 1
    for (let j = top; j >= 0; j--) {
      const loss = this.lowest + j * this.#interval
      const scale = Math.exp(this.#logScale - this.#theta * loss)
      slope = this.#dense.tilted[j]! * scale + decay * slope
      if (loss <= 0) return 0
      // On the way down to the next lattice point the curve rises to height + step * slope.
      const rest = target - this.#error * scale - height
      if (rest <= 0 && j === top) return Number.POSITIVE_INFINITY
      if (rest < step * slope) return Math.max(0, rest <= 0 ? loss : loss + Math.log1p(-rest / slope))
      height += step * slope
    }
    return undefined
  }

  /** delta(eps); undefined when eps lies below the window. */
  delta(epsilon: number): number | undefined {
    if (epsilon < this.lowest) return undefined
    const { tilted } = this.#dense
    const start = Math.max(0, Math.floor((epsilon - this.lowest) / this.#interval))
    let sum = this.#error * Math.exp(this.#logScale - this.#theta * epsilon)
    for (let j = tilted.length - 1; j >= start; j--) {
      const loss = this.lowest + j * this.#interval
      if (loss <= epsilon) break
      sum -= tilted[j]! * Math.exp(this.#logScale - this.#theta * loss) * Math.expm1(epsilon - loss)
    }
    return Math.min(1, Math.max(0, this.#infinite + sum))
  }
}
