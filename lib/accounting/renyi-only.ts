import logGamma from '@stdlib/math-base-special-gammaln'
import type { LossModel, TruncatedModel } from './loss-model.js'
import { RULE } from './quadrature.js'

/** Losses of which only bounds on the Renyi divergence are known. */
abstract class RenyiOnly implements LossModel {
  readonly infinite = 0
  abstract logMoment(alpha: number): number

  truncate(): TruncatedModel {
    throw new RangeError('This loss has no distribution: only its Renyi divergence is bounded')
  }
}

/** rho-zCDP (Bun, Steinke, arXiv 1605.02065): divergence rho alpha at every order. */
export class ZcdpLoss extends RenyiOnly {
  readonly #rho: number

  constructor(rho: number) {
    super()
    this.#rho = rho
  }

  override logMoment(alpha: number): number {
    return (alpha - 1) * this.#rho * alpha
  }
}

const LARGEST_ORDER = 1024
const LARGEST_DIFFERENCE = 256

/**
 * A Gaussian on a batch drawn without replacement, under replacement of a unit: Theorem 27 of Wang, Balle,
 * Kasiviswanathan (arXiv 1808.00087), a bound at integer orders; between them log-moments are interpolated, which is a
 * bound too because they are convex.
 */
export class FixedSizeRenyi extends RenyiOnly {
  readonly #rate: number
  readonly #shift: number
  readonly #moments = new Map<number, number>()
  readonly #differences = new Map<number, number>()

  /** @param shift how far a replacement moves the sum, in standard deviations of the noise. */
  constructor(rate: number, shift: number) {
    super()
    this.#rate = rate
    this.#shift = shift
  }

  override logMoment(alpha: number): number {
    if (this.#rate === 1) return (alpha * (alpha - 1) * this.#shift * this.#shift) / 2
    const below = Math.floor(alpha)
    const share = alpha - below
    const lower = this.#atInteger(below)
    return share === 0 ? lower : (1 - share) * lower + share * this.#atInteger(below + 1)
  }

  #atInteger(alpha: number): number {
    if (alpha <= 1) return 0
    if (alpha > LARGEST_ORDER) return Number.POSITIVE_INFINITY
    let moment = this.#moments.get(alpha)
    if (moment === undefined) {
      moment = this.#bound(alpha)
      this.#moments.set(alpha, moment)
    }
    return moment
  }

  #bound(alpha: number): number {
    const variance = this.#shift * this.#shift
    const logs = [0]
    for (let j = 2; j <= alpha; j++) {
      const moment = Math.LN2 + (j * (j - 1) * variance) / 2
      const difference =
        j === 2
          ? 2 * Math.LN2 + Math.log(Math.expm1(variance))
          : 2 * Math.LN2 + 0.5 * (this.#difference(2 * Math.floor(j / 2)) + this.#difference(2 * Math.ceil(j / 2)))
      logs.push(j * Math.log(this.#rate) + logChoose(alpha, j) + Math.min(moment, difference))
    }
    const largest = Math.max(...logs)
    return largest + Math.log(logs.reduce((sum, value) => sum + Math.exp(value - largest), 0))
  }

  /** log E_Q (p / q - 1)^order for an even order, by quadrature: no term is negative, unlike in the alternating sum. */
  #difference(order: number): number {
    if (order > LARGEST_DIFFERENCE) return Number.POSITIVE_INFINITY
    let value = this.#differences.get(order)
    if (value !== undefined) return value
    const shift = this.#shift
    const [low, high] = [-13, order * shift + 13]
    const panels = Math.ceil((high - low) / Math.min(0.5, 1 / shift))
    const half = (high - low) / panels / 2
    const exponents: number[] = []
    for (let panel = 0; panel < panels; panel++) {
      for (let k = 0; k < RULE.nodes.length; k++) {
        const x = low + (2 * panel + 1 + RULE.nodes[k]!) * half
        const loss = shift * (x - 0.5 * shift)
        const ratio = loss > 30 ? loss : Math.log(Math.abs(Math.expm1(loss)))
        exponents.push(Math.log(RULE.weights[k]! * half) - 0.5 * x * x + order * ratio)
      }
    }
    const largest = exponents.reduce((best, exponent) => Math.max(best, exponent), Number.NEGATIVE_INFINITY)
    const sum = exponents.reduce((total, exponent) => total + Math.exp(exponent - largest), 0)
    value = largest + Math.log(sum) - 0.5 * Math.log(2 * Math.PI)
    this.#differences.set(order, value)
    return value
  }
}

function logChoose(n: number, k: number): number {
  return logGamma(n + 1) - logGamma(k + 1) - logGamma(n - k + 1)
}
