import { composeBlocks, DIRECT, ONE_BLOCK, planBlocks } from './blocks.js'
import { deltaOfGaussians, epsilonOfGaussians } from './gaussian-mechanism.js'
import { HockeyStick } from './hockey-stick.js'
import type { Cumulants } from './log-moment.js'
import { GaussianLoss } from './loss-model.js'
import { MixturePair } from './mixture-pair.js'
import { Resolution } from './resolution.js'
import { type CountedLattice, compose } from './self-convolution.js'
import { type CountedLoss, TruncatedLoss } from './truncated-loss.js'
import { TwoPointLoss } from './two-point-loss.js'

/** Two numbers between which the true one lies. */
export interface Bracket {
  readonly lower: number
  readonly upper: number
}

/** The hockey-stick curves between which the true one lies. */
interface Curves {
  readonly upper: HockeyStick
  readonly lower: HockeyStick
}

/** Part of delta that may be cut off as infinite loss, and that wrapped mass may add up to, as parts of the tolerance. */
const CUT_OFF = 1e-4
/** Tolerances between which a first attempt is finer than asked for, as far as that is quick; below FINE, slow. */
const COARSE = 2e-3
const FINE = 1e-5
/** Standard deviations of a release, in a window, from which on lattices are kept small. */
const WIDE = 1000
/** Standard deviations that a window spans, about. */
const SPAN = 15
const ATTEMPTS = 9
/** Mass per release and end that is cut off while delta is not yet known. */
const UNSEEN = 1e-40
/** Relative error of closed forms in float64. */
const EXACT = 1e-12
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
    this.#losses = mergeGaussians(
      losses.filter(({ model, count }) => count > 0 && !(model instanceof TwoPointLoss && model.highest === 0)),
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
    const mu = this.#separation()
    if (mu !== undefined) return around(epsilonOfGaussians(mu, delta))
    // Rounding of the difference may make it zero or less: then nothing finite is promised.
    const left = delta - this.#infinite
    if (!(left > 1e-12 * delta)) return { lower: 0, upper: Number.POSITIVE_INFINITY }
    const loss = this.#truncated(left)
    // What was cut off is less than delta, hence epsilon at most the largest loss left.
    let best: Bracket = { lower: 0, upper: Math.max(0, loss.highest) }
    if (best.upper <= floor) return best
    const target = -Math.log(left)
    let theta = loss.solve((at, order) => -logDelta(at, order) - target, Math.sqrt(2 * target))
    // Most often a coarse look shows that this direction costs less than the floor.
    const resolution = new Resolution(this.#firstResolution(loss, theta) / (floor > 0 ? 16 : 1))
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const tilted = loss.cumulants(theta)
      const curves = this.#curves(loss, theta, resolution, attempt)
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
      const allowed = Math.max(this.#tolerance * best.upper, 1e-6 * Math.sqrt(tilted.variance))
      const gap = best.upper - best.lower
      if (best.upper <= floor || resolution.settles(gap, allowed)) break
      const better = attempt < 3 ? betterTilt(loss, theta, best) : undefined
      if (better === undefined) resolution.refine(gap / allowed)
      else theta = better
    }
    return best
  }

  /** delta for this epsilon. */
  delta(epsilon: number): Bracket {
    if (this.#releases === 0) return { lower: this.#infinite, upper: this.#infinite }
    const mu = this.#separation()
    if (mu !== undefined) {
      const { lower, upper } = around(deltaOfGaussians(mu, epsilon))
      return { lower, upper: Math.min(1, upper) }
    }
    let loss = new TruncatedLoss(this.#losses, UNSEEN)
    if (epsilon >= loss.highest)
      return { lower: this.#infinite, upper: Math.min(1, this.#infinite + UNSEEN * this.#releases) }
    let theta = loss.solve(({ mean }) => mean - epsilon, 1)
    let guess = Math.max(1e-290, Math.exp(logDelta(loss.cumulants(theta), theta)))
    loss = this.#truncated(guess)
    theta = loss.solve(({ mean }) => mean - epsilon, 1)
    const resolution = new Resolution(this.#firstResolution(loss, theta))
    let best: Bracket = { lower: 0, upper: 1 }
    for (let attempt = 0; attempt < ATTEMPTS; attempt++) {
      const curves = this.#curves(loss, theta, resolution, attempt)
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
      if (best.upper < 1e-290 || resolution.settles(gap, allowed)) break
      if (attempt < 3 && best.upper - this.#infinite < 0.3 * guess) {
        guess = Math.max(1e-290, best.lower - this.#infinite, 1e-3 * (best.upper - this.#infinite))
        loss = this.#truncated(guess)
        theta = loss.solve(({ mean }) => mean - epsilon, 1)
      } else {
        resolution.refine(gap / allowed)
      }
    }
    return best
  }

  /** Where all releases are plain Gaussians, hence one: how far apart its two means are. */
  #separation(): number | undefined {
    const only = this.#losses.length === 1 && this.#infinite === 0 ? this.#losses[0]!.model : undefined
    return only instanceof GaussianLoss ? (this.#releases === 1 ? only.pair.separation : undefined) : undefined
  }

  /** All losses, with so little cut off that delta changes by a small part of the tolerance. */
  #truncated(delta: number): TruncatedLoss {
    return new TruncatedLoss(this.#losses, (delta * CUT_OFF * this.#tolerance) / this.#releases)
  }

  /**
   * Points per standard deviation of one release: what the tolerance needs, or more where that fits a size that is quick
   * to transform; the last power of two is used up.
   */
  #firstResolution(loss: TruncatedLoss, theta: number): number {
    const needed = Math.sqrt(0.3 / this.#tolerance)
    const inBlocks = this.#inBlocks(loss, theta)
    const points = inBlocks ? loss.blockPoints(theta) : this.#directPoints()
    const effort = this.#tolerance > COARSE ? 14 : this.#tolerance > FINE ? 16 : 18
    const quick = 2 ** (points > WIDE || effort === 14 ? effort : effort + 2)
    const size = Math.max(quick, 2 ** Math.ceil(Math.log2(needed * points)))
    return Math.min(4096, size / points)
  }

  /** Lattice points that one convolution of all releases needs, for one point per standard deviation of a release. */
  #directPoints(): number {
    return SPAN * Math.sqrt(this.#releases)
  }

  #inBlocks(loss: TruncatedLoss, theta: number): boolean {
    return loss.blockPoints(theta) < 0.5 * this.#directPoints()
  }

  /** The curves on the finest lattice, from `resolution` on, that is not too large; undefined where none is worthwhile. */
  #curves(loss: TruncatedLoss, theta: number, resolution: Resolution, attempt: number): Curves | undefined {
    for (let coarser = 0; coarser < ATTEMPTS; coarser++) {
      const curves = this.#curvesAt(loss, theta, resolution.value, attempt)
      if (curves) {
        resolution.fits()
        return curves
      }
      if (!resolution.coarsen()) break
    }
    return undefined
  }

  #curvesAt(loss: TruncatedLoss, theta: number, resolution: number, attempt: number): Curves | undefined {
    const tilted = loss.cumulants(theta)
    const { parts } = loss
    const inBlocks = this.#inBlocks(loss, theta)
    const interval = Math.sqrt(tilted.variance / (inBlocks ? DIRECT : this.#releases)) / resolution
    const outside =
      (10 ** (-2 - 3 * Math.min(attempt, 4)) * CUT_OFF * this.#tolerance) /
      (Math.max(1, saddleWidth(tilted, theta)) * (parts.length + 1))
    const merged: CountedLattice[] = []
    let [logScale, error, finite] = [0, 0, 0]
    for (const part of parts) {
      const plan = inBlocks ? planBlocks(part.count) : ONE_BLOCK
      const lattice = part.model.lattice(theta, interval / plan.factor ** plan.levels, 1 / resolution)
      if (!lattice) return undefined
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
      logScale: logScale + this.#apart,
    }
    return {
      upper: new HockeyStick(composed, 'upper', allowance),
      lower: new HockeyStick(composed, 'lower', allowance),
    }
  }
}

/** Plain Gaussians are one Gaussian, whose squared separation is the sum of theirs. */
function mergeGaussians(losses: readonly CountedLoss[]): CountedLoss[] {
  const separation = ({ model }: CountedLoss) => (model instanceof GaussianLoss ? model.pair.separation : undefined)
  const others = losses.filter((loss) => separation(loss) === undefined)
  if (others.length === losses.length) return others
  const square = losses.reduce((sum, loss) => sum + loss.count * (separation(loss) ?? 0) ** 2, 0)
  const mu = Math.sqrt(square)
  const merged = new MixturePair(1, [{ weight: 1, mean: mu }], [{ weight: 1, mean: 0 }])
  return [...others, { model: new GaussianLoss(merged), count: 1 }]
}

/** A closed form's value with what float64 may have got wrong in it. */
function around(value: number): Bracket {
  return { lower: value * (1 - EXACT), upper: value * (1 + EXACT) }
}

/**
 * The tilt whose mean is the epsilon of the bracket that is nearest to the present mean, where it makes float64's errors
 * matter far less: they weigh as e^(K(theta) - theta eps), which is least at that tilt.
 */
function betterTilt(loss: TruncatedLoss, theta: number, { lower, upper }: Bracket): number | undefined {
  const now = loss.cumulants(theta)
  const aim = Math.min(upper, Math.max(lower, now.mean))
  if (aim === now.mean || aim <= 0) return undefined
  const better = loss.solve(({ mean }) => mean - aim, 1)
  const gain = now.value - theta * aim - (loss.cumulants(better).value - better * aim)
  return gain > 3 ? better : undefined
}

/** e^(K(theta) - theta eps) is about this many times delta. */
function saddleWidth({ variance }: Cumulants, theta: number): number {
  return theta * (1 + theta) * Math.sqrt(2 * Math.PI * variance)
}

/** The saddle-point approximation of log delta at eps = the tilted mean; good to a factor, which is all it is for. */
function logDelta(tilted: Cumulants, theta: number): number {
  return tilted.value - theta * tilted.mean - Math.log(Math.max(1, saddleWidth(tilted, theta)))
}
