import { type CurveEnds, HockeyStick } from './hockey-stick.js'
import { type Cumulants, cumulants, LossAtoms } from './log-moment.js'
import { discretise } from './loss-lattice.js'
import type { MixturePair } from './mixture-pair.js'
import { type CountedLattice, compose, type Window } from './self-convolution.js'

/** A pair and how often its loss is drawn. */
export interface CountedPair {
  readonly pair: MixturePair
  readonly count: number
}

/** Two numbers between which the true one lies. */
export interface Bracket {
  readonly lower: number
  readonly upper: number
}

/** The lattice's largest number of points; an accuracy that needs more is not reached, and the bracket says so. */
const LARGEST_WINDOW = 2 ** 21
/** Tilted mass allowed outside the window. */
const OUTSIDE = 1e-9
/** Part of delta that may be cut off as infinite loss. */
const CUT_OFF = 1e-5
/** Cells per tilted standard deviation of one release's loss, at the first attempt. */
const FIRST_RESOLUTION = 16
const ATTEMPTS = 12
/** Relative error of the masses of one release: quadrature and exponentials in float64. */
const ERROR_PER_RELEASE = 3e-14

/**
 * The composition of many privacy losses in one direction (add or remove).
 *
 * Guarantee: every bracket holds the exact value, up to a float64 error that is itself bounded and added. Its width is
 * brought below the tolerance by refining the lattice.
 */
export class Composition {
  readonly #pairs: readonly CountedPair[]
  readonly #releases: number
  readonly #tolerance: number

  /** @param tolerance relative width of a bracket to reach. */
  constructor(pairs: readonly CountedPair[], tolerance: number) {
    this.#pairs = pairs.filter(({ count }) => count > 0)
    this.#releases = this.#pairs.reduce((sum, { count }) => sum + count, 0)
    this.#tolerance = tolerance
  }

  /** The smallest epsilon >= 0 for this delta. */
  epsilon(delta: number): Bracket {
    if (this.#releases === 0) return { lower: 0, upper: 0 }
    const loss = new TruncatedLoss(this.#pairs, (delta * CUT_OFF) / this.#releases)
    const target = -Math.log(delta)
    let theta = loss.solve((at, order) => -logDelta(at, order) - target, Math.sqrt(2 * target))
    let resolution = FIRST_RESOLUTION
    let best: Bracket = { lower: 0, upper: Number.POSITIVE_INFINITY }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const tilted = loss.cumulants(theta)
      const curves = this.#curves(loss, theta, resolution)
      const upper = curves.upper.epsilon(delta)
      const lower = curves.lower.epsilon(delta)
      if (upper === undefined || lower === undefined) {
        // eps lies below the window: aim at the window's lower end.
        theta = curves.lowest > 0 ? loss.solve(({ mean }) => mean - curves.lowest, 1) : 0
        theta = Math.min(
          theta,
          loss.solve(({ mean }) => mean - 0.5 * tilted.mean, 1),
        )
        continue
      }
      best = { lower: Math.max(best.lower, Math.min(lower, upper)), upper: Math.min(best.upper, upper) }
      const spread = Math.sqrt(tilted.variance)
      const allowed = Math.max(this.#tolerance * best.upper, 1e-6 * spread)
      const gap = best.upper - best.lower
      if (gap <= allowed || curves.coarse) break
      const middle = 0.5 * (best.lower + best.upper)
      if (attempt < 3 && Math.abs(middle - tilted.mean) > 3 * spread) {
        theta = loss.solve(({ mean }) => mean - middle, 1)
      } else {
        resolution *= Math.min(8, Math.max(1.3, Math.sqrt((1.6 * gap) / allowed)))
      }
    }
    return best
  }

  /** delta for this epsilon. */
  delta(epsilon: number): Bracket {
    if (this.#releases === 0) return { lower: 0, upper: 0 }
    let tail = 1e-40
    let loss = new TruncatedLoss(this.#pairs, tail)
    let theta = loss.solve(({ mean }) => mean - epsilon, 1)
    tail = Math.max(1e-300, (Math.exp(logDelta(loss.cumulants(theta), theta)) * CUT_OFF) / this.#releases)
    loss = new TruncatedLoss(this.#pairs, tail)
    theta = loss.solve(({ mean }) => mean - epsilon, 1)
    let resolution = FIRST_RESOLUTION
    let best: Bracket = { lower: 0, upper: 1 }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const curves = this.#curves(loss, theta, resolution)
      const upper = curves.upper.delta(epsilon)
      const lower = curves.lower.delta(epsilon)
      if (upper === undefined || lower === undefined) {
        theta *= 0.5
        continue
      }
      best = { lower: Math.max(best.lower, lower), upper: Math.min(best.upper, upper) }
      const gap = best.upper - best.lower
      if (gap <= this.#tolerance * best.upper || curves.coarse) break
      const fitting = Math.max(1e-300, (best.lower * CUT_OFF) / this.#releases)
      if (attempt < 3 && (fitting > 1e3 * tail || fitting < tail)) {
        tail = fitting
        loss = new TruncatedLoss(this.#pairs, tail)
        theta = loss.solve(({ mean }) => mean - epsilon, 1)
      } else {
        resolution *= Math.min(8, Math.max(1.3, Math.sqrt((1.6 * gap) / (this.#tolerance * best.upper))))
      }
    }
    return best
  }

  #curves(loss: TruncatedLoss, theta: number, resolution: number): Curves {
    let interval = Math.sqrt(loss.cumulants(theta).variance / this.#releases) / resolution
    let coarse = false
    for (;;) {
      const segments = loss.lattices(theta, interval, 1 / resolution)
      const { low, high } = chernoffWindow(segments, theta)
      const origin = segments.reduce((sum, { lattice, count }) => sum + count * lattice.origin, 0)
      const first = Math.floor((low - origin) / interval)
      const points = Math.ceil((high - origin) / interval) - first + 1
      if (points > LARGEST_WINDOW) {
        interval *= (1.01 * points) / LARGEST_WINDOW
        coarse = true
        continue
      }
      const size = Math.max(16, 2 ** Math.ceil(Math.log2(points)))
      const window: Window = { theta, origin, interval, first, size }
      const { upper, lower } = compose(segments, window)
      const finite = segments.reduce((sum, { lattice, count }) => sum + count * Math.log1p(-lattice.infinite), 0)
      const above = OUTSIDE * Math.exp(upper.logScale - theta * (origin + (first + size - 1) * interval))
      const ends: Omit<CurveEnds, 'beyond'> = {
        window,
        aliased: 2 * OUTSIDE,
        relativeError: ERROR_PER_RELEASE * this.#releases,
      }
      return {
        upper: new HockeyStick(upper, { ...ends, beyond: -Math.expm1(finite) + above }, 'upper'),
        lower: new HockeyStick(lower, { ...ends, beyond: 0 }, 'lower'),
        lowest: origin + first * interval,
        coarse,
      }
    }
  }
}

/** The saddle-point approximation of log delta at eps = the tilted mean; good to a factor, which is all it is for. */
function logDelta({ value, mean, variance }: Cumulants, theta: number): number {
  const width = theta * (1 + theta) * Math.sqrt(2 * Math.PI * variance)
  return value - theta * mean - Math.log(Math.max(1, width))
}

interface Curves {
  readonly upper: HockeyStick
  readonly lower: HockeyStick
  /** Smallest loss in the window. */
  readonly lowest: number
  /** Whether the interval had to be widened to fit the largest window. */
  readonly coarse: boolean
}

/** The losses of all pairs with `tail` mass cut off at either end of each. */
class TruncatedLoss {
  readonly #parts: readonly { pair: MixturePair; count: number; low: number; high: number; atoms: LossAtoms }[]

  constructor(pairs: readonly CountedPair[], tail: number) {
    this.#parts = pairs.map(({ pair, count }) => {
      const [low, high] = [pair.lowerQuantile(tail), pair.upperQuantile(tail)]
      return { pair, count, low, high, atoms: new LossAtoms(pair, low, high) }
    })
  }

  /** Cumulants of the sum of all losses. */
  cumulants(theta: number): Cumulants {
    let [value, mean, variance] = [0, 0, 0]
    for (const { atoms, count } of this.#parts) {
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
    let high = deviations / Math.sqrt(this.cumulants(0).variance)
    let low = 0
    for (let i = 0; excess(this.cumulants(high), high) < 0; i++) {
      if (i === 60) return high
      low = high
      high *= 2
    }
    for (let i = 0; low === 0 && i < 60; i++) {
      const middle = high / 4
      if (excess(this.cumulants(middle), middle) < 0) low = middle
      else high = middle
    }
    if (low === 0) return 0
    while (high > 1.01 * low) {
      const middle = Math.sqrt(low * high)
      if (excess(this.cumulants(middle), middle) < 0) low = middle
      else high = middle
    }
    return low
  }

  lattices(theta: number, interval: number, growth: number): CountedLattice[] {
    const widest = Math.max(interval, Math.min(1, (4 * growth) / theta))
    return this.#parts.map(({ pair, count, low, high, atoms }) => {
      const centre = atoms.cumulants(theta).mean
      return { lattice: discretise(pair, low, high, { interval, growth, centre, widest }), count }
    })
  }
}

/** Losses between which all but OUTSIDE of the tilted, composed mass lies, by Chernoff's bound on the lattices. */
function chernoffWindow(segments: readonly CountedLattice[], theta: number): { low: number; high: number } {
  const measures = segments.map(({ lattice, count }) => {
    const losses = lattice.indices.map((index) => lattice.origin + index * lattice.interval)
    return { losses, count, masses: [lattice.upper, lattice.lower] }
  })
  const logMoment = (order: number, which: number) =>
    measures.reduce((sum, { losses, masses, count }) => sum + count * cumulants(losses, masses[which]!, order).value, 0)
  let variance = 0
  let [lowest, highest] = [0, 0]
  for (const { losses, masses, count } of measures) {
    variance += count * cumulants(losses, masses[0]!, theta).variance
    lowest += count * losses[0]!
    highest += count * losses[losses.length - 1]!
  }
  const least = -Math.log(OUTSIDE)
  const scale = Math.sqrt((2 * least) / variance)
  let low = Number.POSITIVE_INFINITY
  let high = Number.NEGATIVE_INFINITY
  for (const which of [0, 1]) {
    const base = logMoment(theta, which)
    if (base === Number.NEGATIVE_INFINITY) continue
    let [ownLow, ownHigh] = [lowest, highest]
    for (const step of [0.25, 0.5, 0.75, 1, 1.5, 2.5]) {
      const lambda = step * scale
      ownHigh = Math.min(ownHigh, (logMoment(theta + lambda, which) - base + least) / lambda)
      ownLow = Math.max(ownLow, -(logMoment(theta - lambda, which) - base + least) / lambda)
    }
    low = Math.min(low, ownLow)
    high = Math.max(high, ownHigh)
  }
  return { low, high }
}
