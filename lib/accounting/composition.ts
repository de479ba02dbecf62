import { composeBlocks, DIRECT, ONE_BLOCK, planBlocks } from './blocks.js'
import { HockeyStick } from './hockey-stick.js'
import type { Cumulants } from './log-moment.js'
import { type CountedLattice, compose } from './self-convolution.js'
import { type CountedLoss, TruncatedLoss } from './truncated-loss.js'
import { TwoPointLoss } from './two-point-loss.js'

/** Two numbers between which the true one lies. */
export interface Bracket {
  readonly lower: number
  readonly upper: number
}

/** Part of delta that may be cut off as infinite loss, and that wrapped mass may add up to, as parts of the tolerance. */
const CUT_OFF = 0.1
/** Lattice size that a first attempt fills, where it is not coarser than the tolerance allows. */
const FIRST_SIZE = 2 ** 15
/** Standard deviations that a window spans, about. */
const SPAN = 15
const ATTEMPTS = 12
/** Mass per release and end that is cut off while delta is not yet known. */
const UNSEEN = 1e-40
/** Relative error of the masses of one release: quadrature and exponentials in float64. */
const ERROR_PER_RELEASE = 3e-14

/**
 * The composition of many privacy losses in one direction (add or remove).
 *
 * Guarantee: every bracket holds the exact value, up to a float64 error that is itself bounded and added. Its width is
 * brought below the tolerance by refining the lattice.
 */
export class Composition {
  readonly #losses: readonly CountedLoss[]
  readonly #releases: number
  readonly #tolerance: number
  /** Probability of an infinite loss, and log of the probability that no loss left out of #losses is infinite. */
  readonly #infinite: number
  readonly #apart: number

  /** @param tolerance relative width of a bracket to reach. */
  constructor(losses: readonly CountedLoss[], tolerance: number) {
    // A guarantee with epsilon = 0 only has an infinite loss, which is counted apart.
    this.#losses = losses.filter(
      ({ model, count }) => count > 0 && !(model instanceof TwoPointLoss && model.highest === 0),
    )
    const finite = losses.reduce((sum, { model, count }) => sum + count * Math.log1p(-model.infinite), 0)
    this.#infinite = -Math.expm1(finite)
    this.#apart = finite - this.#losses.reduce((sum, { model, count }) => sum + count * Math.log1p(-model.infinite), 0)
    this.#releases = this.#losses.reduce((sum, { count }) => sum + count, 0)
    this.#tolerance = tolerance
  }

  /**
   * The smallest epsilon >= 0 for this delta.
   *
   * @param floor an epsilon below which the exact value does not matter: the search stops once it is known to be there.
   */
  epsilon(delta: number, floor = 0): Bracket {
    if (delta < this.#infinite) return { lower: Number.POSITIVE_INFINITY, upper: Number.POSITIVE_INFINITY }
    if (this.#releases === 0) return { lower: 0, upper: 0 }
    // Rounding of the difference may make it zero or less: then nothing finite is promised.
    const left = delta - this.#infinite
    if (!(left > 1e-12 * delta)) return { lower: 0, upper: Number.POSITIVE_INFINITY }
    const loss = this.#truncated(left)
    const target = -Math.log(left)
    let theta = loss.solve((at, order) => -logDelta(at, order) - target, Math.sqrt(2 * target))
    let resolution = this.#firstResolution(loss, theta) * (floor > 0 ? 0.25 : 1)
    let best: Bracket = { lower: 0, upper: Number.POSITIVE_INFINITY }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const tilted = loss.cumulants(theta)
      const curves = this.#curves(loss, theta, resolution)
      if (!curves) break
      const upper = curves.upper.epsilon(delta)
      const lower = curves.lower.epsilon(delta)
      if (upper === undefined || lower === undefined) {
        // eps lies below the window: aim at the window's lower end.
        const lowest = Math.min(curves.upper.lowest, curves.lower.lowest, 0.5 * tilted.mean)
        theta = lowest > 0 ? loss.solve(({ mean }) => mean - lowest, 1) : 0
        continue
      }
      best = { lower: Math.max(best.lower, Math.min(lower, upper)), upper: Math.min(best.upper, upper) }
      const spread = Math.sqrt(tilted.variance)
      const allowed = Math.max(this.#tolerance * best.upper, 1e-6 * spread)
      const gap = best.upper - best.lower
      if (gap <= allowed || best.upper <= floor) break
      if (attempt < 3 && best.upper < tilted.mean - 3 * spread) {
        theta = loss.solve(({ mean }) => mean - best.upper, 1)
      } else if (attempt < 3 && best.lower > tilted.mean + 3 * spread) {
        theta = loss.solve(({ mean }) => mean - best.lower, 1)
      } else {
        resolution *= refinement(gap / allowed)
      }
    }
    return best
  }

  /** delta for this epsilon. */
  delta(epsilon: number): Bracket {
    if (this.#releases === 0) return { lower: this.#infinite, upper: this.#infinite }
    let loss = new TruncatedLoss(this.#losses, UNSEEN)
    if (epsilon >= loss.highest)
      return { lower: this.#infinite, upper: Math.min(1, this.#infinite + UNSEEN * this.#releases) }
    let theta = loss.solve(({ mean }) => mean - epsilon, 1)
    let guess = Math.max(1e-290, Math.exp(logDelta(loss.cumulants(theta), theta)))
    loss = this.#truncated(guess)
    theta = loss.solve(({ mean }) => mean - epsilon, 1)
    let resolution = this.#firstResolution(loss, theta)
    let best: Bracket = { lower: 0, upper: 1 }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const curves = this.#curves(loss, theta, resolution)
      if (!curves) break
      const upper = curves.upper.delta(epsilon)
      const lower = curves.lower.delta(epsilon)
      if (upper === undefined || lower === undefined) {
        theta *= 0.5
        continue
      }
      best = { lower: Math.max(best.lower, lower), upper: Math.min(best.upper, upper) }
      const gap = best.upper - best.lower
      const allowed = this.#tolerance * best.upper
      if (gap <= allowed || best.upper < 1e-290) break
      if (attempt < 3 && best.upper - this.#infinite < 0.3 * guess) {
        guess = Math.max(1e-290, best.lower - this.#infinite, 1e-3 * (best.upper - this.#infinite))
        loss = this.#truncated(guess)
        theta = loss.solve(({ mean }) => mean - epsilon, 1)
      } else {
        resolution *= refinement(gap / allowed)
      }
    }
    return best
  }

  /** All losses, with so little cut off that delta changes by a small part of the tolerance. */
  #truncated(delta: number): TruncatedLoss {
    return new TruncatedLoss(this.#losses, (delta * CUT_OFF * this.#tolerance) / this.#releases)
  }

  /**
   * Points per standard deviation of one release: what the tolerance needs, or more where that fits FIRST_SIZE; the last
   * power of two is used up.
   */
  #firstResolution(loss: TruncatedLoss, theta: number): number {
    const needed = Math.sqrt(0.3 / this.#tolerance)
    const points = Math.min(this.#directPoints(), loss.blockPoints(theta))
    const size = Math.max(FIRST_SIZE, 2 ** Math.ceil(Math.log2(needed * points)))
    return Math.min(1024, size / points)
  }

  /** Lattice points that one convolution of all releases needs, for one point per standard deviation of a release. */
  #directPoints(): number {
    return SPAN * Math.sqrt(this.#releases)
  }

  #curves(
    loss: TruncatedLoss,
    theta: number,
    resolution: number,
  ): { upper: HockeyStick; lower: HockeyStick } | undefined {
    const tilted = loss.cumulants(theta)
    const { parts } = loss
    const inBlocks = loss.blockPoints(theta) < 0.5 * this.#directPoints()
    const interval = Math.sqrt(tilted.variance / (inBlocks ? DIRECT : this.#releases)) / resolution
    const outside = (0.01 * CUT_OFF * this.#tolerance) / (Math.max(1, saddleWidth(tilted, theta)) * (parts.length + 1))
    const merged: CountedLattice[] = []
    let [logScale, error, finite] = [0, 0, 0]
    for (const part of parts) {
      const plan = inBlocks ? planBlocks(part.count) : ONE_BLOCK
      const lattice = part.model.lattice(theta, interval / plan.factor ** plan.levels, 1 / resolution)
      finite += part.count * Math.log1p(-lattice.infinite)
      const blocked = composeBlocks(lattice, part.count, plan, theta, outside)
      if (!blocked) return undefined
      merged.push(...blocked.parts)
      logScale += blocked.logScale
      error += blocked.error
    }
    const composed = compose(merged, theta, outside)
    if (!composed) return undefined
    const allowance = {
      infinite: { upper: Math.max(this.#infinite, -Math.expm1(finite + this.#apart)), lower: this.#infinite },
      error: error + composed.error,
      relative: ERROR_PER_RELEASE * this.#releases,
      logScale,
    }
    return {
      upper: new HockeyStick(composed, 'upper', allowance),
      lower: new HockeyStick(composed, 'lower', allowance),
    }
  }
}

/** How much finer the lattice has to be where the bracket is `ratio` times as wide as allowed. */
function refinement(ratio: number): number {
  return Math.min(8, Math.max(1.3, Math.sqrt(1.6 * ratio)))
}

/** e^(K(theta) - theta eps) is about this many times delta. */
function saddleWidth({ variance }: Cumulants, theta: number): number {
  return theta * (1 + theta) * Math.sqrt(2 * Math.PI * variance)
}

/** The saddle-point approximation of log delta at eps = the tilted mean; good to a factor, which is all it is for. */
function logDelta(tilted: Cumulants, theta: number): number {
  return tilted.value - theta * tilted.mean - Math.log(Math.max(1, saddleWidth(tilted, theta)))
}
