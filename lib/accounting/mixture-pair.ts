import erfc from '@stdlib/math-base-special-erfc'

/** One Gaussian of a mixture; means are in units of the clipping norm. */
export interface Component {
  readonly weight: number
  readonly mean: number
}

/**
 * A dominating pair (P, Q) of one-dimensional Gaussian mixtures with a common standard deviation, written so that the
 * privacy loss log p(x) / q(x) does not decrease in x.
 *
 * Losses are exact to a few units in the last place even where they are 1e-12: weights of both mixtures sum to one, so
 * log sum w e^s = log1p(sum w expm1(s)).
 */
export class MixturePair {
  readonly sigma: number
  readonly numerator: readonly Component[]
  readonly denominator: readonly Component[]
  /** The loss changes its shape on this scale of x, or on that of sigma when it is smaller. */
  readonly scale: number

  constructor(sigma: number, numerator: readonly Component[], denominator: readonly Component[]) {
    this.sigma = sigma
    this.numerator = numerator.filter((component) => component.weight > 0)
    this.denominator = denominator.filter((component) => component.weight > 0)
    const means = [...this.numerator, ...this.denominator].map((component) => component.mean)
    const spread = Math.max(...means) - Math.min(...means)
    const mixed = this.numerator.length > 1 || this.denominator.length > 1
    this.scale = mixed ? Math.min(sigma, (sigma * sigma * 2) / spread) : sigma
  }

  /** How far the means of two plain Gaussians are apart, in standard deviations; undefined for mixtures. */
  get separation(): number | undefined {
    const [p, q] = [this.numerator, this.denominator]
    return p.length === 1 && q.length === 1 ? (p[0]!.mean - q[0]!.mean) / this.sigma : undefined
  }

  /** log p(x) / q(x). */
  loss(x: number): number {
    return this.#logRatio(this.numerator, x) - this.#logRatio(this.denominator, x)
  }

  /** The density of P. */
  density(x: number): number {
    let sum = 0
    for (const { weight, mean } of this.numerator) {
      const z = (x - mean) / this.sigma
      sum += weight * Math.exp(-0.5 * z * z)
    }
    return sum / (this.sigma * Math.sqrt(2 * Math.PI))
  }

  /** log of the density of Q. */
  logDenominator(x: number): number {
    const z = x / this.sigma
    return this.#logRatio(this.denominator, x) - 0.5 * z * z - Math.log(this.sigma * Math.sqrt(2 * Math.PI))
  }

  /** P(X > x). */
  upperTail(x: number): number {
    let sum = 0
    for (const { weight, mean } of this.numerator) sum += weight * normalUpperTail((x - mean) / this.sigma)
    return sum
  }

  /** P(X < x). */
  lowerTail(x: number): number {
    let sum = 0
    for (const { weight, mean } of this.numerator) sum += weight * normalUpperTail((mean - x) / this.sigma)
    return sum
  }

  /** Some x with P(X > x) <= mass and not far below it. */
  upperQuantile(mass: number): number {
    return bisectTail((x) => this.upperTail(x), mass, this.#extreme(mass, 1), this.#extreme(0.5, -1))
  }

  /** Some x with P(X < x) <= mass and not far below it. */
  lowerQuantile(mass: number): number {
    return -bisectTail((x) => this.lowerTail(-x), mass, -this.#extreme(mass, -1), -this.#extreme(0.5, 1))
  }

  /** The x in [low, high] where the loss reaches `target`, near enough for the edge of an integral. */
  inverse(target: number, low: number, high: number): number {
    let a = low
    let b = high
    if (this.loss(a) >= target) return a
    if (this.loss(b) <= target) return b
    const tolerance = 1e-13 * Math.max(Math.abs(low), Math.abs(high), this.sigma)
    let x = this.#closedInverse(target)
    if (!(x > a && x < b)) x = 0.5 * (a + b)
    for (let iteration = 0; iteration < 200 && b - a > tolerance; iteration++) {
      const difference = this.loss(x) - target
      if (difference > 0) b = x
      else a = x
      const slope = this.#lossSlope(x)
      let next = x - difference / slope
      if (Math.abs(next - x) < tolerance) return next > a && next < b ? next : x
      if (!(next > a && next < b)) next = 0.5 * (a + b)
      x = next
    }
    return x
  }

  #closedInverse(target: number): number {
    const variance = this.sigma * this.sigma
    const [p, q] = [this.numerator, this.denominator]
    if (p.length === 1 && q.length === 1) {
      const slope = (p[0]!.mean - q[0]!.mean) / variance
      return target / slope + 0.5 * (p[0]!.mean + q[0]!.mean)
    }
    return Number.NaN
  }

  #lossSlope(x: number): number {
    return (
      (this.#posteriorMean(this.numerator, x) - this.#posteriorMean(this.denominator, x)) / (this.sigma * this.sigma)
    )
  }

  #posteriorMean(components: readonly Component[], x: number): number {
    if (components.length === 1) return components[0]!.mean
    const largest = this.#largestExponent(components, x)
    let total = 0
    let sum = 0
    for (const { weight, mean } of components) {
      const value = weight * Math.exp(this.#exponent(mean, x) - largest)
      total += value
      sum += value * mean
    }
    return sum / total
  }

  /** log of a mixture's density relative to N(0, sigma^2). */
  #logRatio(components: readonly Component[], x: number): number {
    if (components.length === 1) return this.#exponent(components[0]!.mean, x)
    const largest = this.#largestExponent(components, x)
    let sum = 0
    if (largest < 30) {
      for (const { weight, mean } of components) {
        if (mean !== 0) sum += weight * Math.expm1(this.#exponent(mean, x))
      }
      if (sum > -0.9) return Math.log1p(sum)
      sum = 0
    }
    for (const { weight, mean } of components) sum += weight * Math.exp(this.#exponent(mean, x) - largest)
    return largest + Math.log(sum)
  }

  #largestExponent(components: readonly Component[], x: number): number {
    let largest = Number.NEGATIVE_INFINITY
    for (const { mean } of components) largest = Math.max(largest, this.#exponent(mean, x))
    return largest
  }

  #exponent(mean: number, x: number): number {
    return (mean * (x - 0.5 * mean)) / (this.sigma * this.sigma)
  }

  /** A point beyond which every component of P has at most `mass` on the given side. */
  #extreme(mass: number, side: 1 | -1): number {
    const z = mass < 0.5 ? Math.sqrt(-2 * Math.log(Math.max(mass, 1e-300))) : 0 // P(Z > z) < e^(-z^2 / 2)
    let extreme = Number.NEGATIVE_INFINITY
    for (const { mean } of this.numerator) extreme = Math.max(extreme, side * mean + z * this.sigma)
    return side * extreme
  }
}

/** P(Z > z) for a standard normal Z, with small relative error in both tails. */
export function normalUpperTail(z: number): number {
  return 0.5 * erfc(z * Math.SQRT1_2)
}

/** The smallest x (to a thousandth of the bracket) with tail(x) <= mass; `high` satisfies it. */
function bisectTail(tail: (x: number) => number, mass: number, high: number, low: number): number {
  let [a, b] = [low, high]
  for (let iteration = 0; iteration < 40; iteration++) {
    const middle = 0.5 * (a + b)
    if (tail(middle) <= mass) b = middle
    else a = middle
  }
  return b
}
