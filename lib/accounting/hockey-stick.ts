import type { TiltedMasses, Window } from './self-convolution.js'

/** What is known of a composed loss beyond its window. */
export interface CurveEnds {
  readonly window: Window
  /** Added to every delta: mass at infinite loss and beyond the window. */
  readonly beyond: number
  /** Bound on the tilted mass that the cyclic convolution may have moved into the window. */
  readonly aliased: number
  /** Bound on the relative error of every mass, from quadrature and normalisation. */
  readonly relativeError: number
}

/** A hockey-stick curve delta(eps), linear in e^eps between lattice points, known from above or from below. */
export class HockeyStick {
  readonly #losses: (j: number) => number
  readonly #mass: (j: number) => number
  readonly #ends: CurveEnds
  readonly #wrapped: (loss: number) => number

  constructor(masses: TiltedMasses, ends: CurveEnds, bound: 'upper' | 'lower') {
    const { theta, origin, interval, first } = ends.window
    const sign = bound === 'upper' ? 1 : -1
    const factor = Math.exp(sign * ends.relativeError)
    this.#ends = ends
    this.#losses = (j) => origin + (first + j) * interval
    this.#mass = (j) => {
      const tilted = masses.tilted[j]! + sign * masses.rounding
      return tilted > 0 ? factor * tilted * Math.exp(masses.logScale - theta * this.#losses(j)) : 0
    }
    // Mass that wrapped around can only raise a curve: harmless from above, taken off from below.
    this.#wrapped = (loss) => (bound === 'upper' ? 0 : ends.aliased * Math.exp(masses.logScale - theta * loss))
  }

  /**
   * The smallest eps >= 0 with delta(eps) <= delta, or undefined when it lies below the window.
   */
  epsilon(delta: number): number | undefined {
    const step = -Math.expm1(-this.#ends.window.interval)
    const decay = Math.exp(-this.#ends.window.interval)
    let height = this.#ends.beyond
    let slope = 0
    if (height > delta) return Number.POSITIVE_INFINITY
    for (let j = this.#ends.window.size - 1; j >= 0; j--) {
      const loss = this.#losses(j)
      slope = this.#mass(j) + decay * slope
      if (loss <= 0) return 0
      // On the way down to the next lattice point the curve rises to height + step * slope.
      const target = delta + this.#wrapped(loss)
      if (height + step * slope > target) {
        const down = height >= target ? 0 : -Math.log1p(-(target - height) / slope)
        return Math.max(0, loss - down)
      }
      height += step * slope
    }
    return undefined
  }

  /** delta(eps); undefined when eps lies below the window. */
  delta(epsilon: number): number | undefined {
    const { window, beyond } = this.#ends
    const start = Math.max(0, Math.floor((epsilon - window.origin) / window.interval) - window.first + 1)
    if (epsilon < this.#losses(0)) return undefined
    let sum = 0
    for (let j = window.size - 1; j >= start; j--) sum += this.#mass(j) * -Math.expm1(epsilon - this.#losses(j))
    return Math.min(1, Math.max(0, beyond + sum - this.#wrapped(epsilon)))
  }
}
