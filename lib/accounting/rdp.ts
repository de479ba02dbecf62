import { type Accountant, type DeltaBounds, type EpsilonBounds, EventLog } from './accountant.js'
import { directedLosses } from './directed-losses.js'
import type { CountedEvent, DpEvent, NeighboringRelation } from './events.js'
import type { LossModel } from './loss-model.js'
import { requireCount, requireDelta, requireEpsilon } from './numbers.js'

export interface RdpOptions {
  /** Default 'zero-out'. */
  readonly relation?: NeighboringRelation
}

/** Orders are searched between these; alpha - 1 on a logarithmic scale. */
const LEAST_ORDER = 1 + 1e-4
const LARGEST_ORDER = 1e9
const GRID = 48

/**
 * Renyi differential privacy: looser than PLD by some 10 %, an upper bound only (lowerBound is 0).
 *
 * Guarantee: epsilon(delta) and delta(epsilon) hold for every order tried, and the best of all real orders is taken;
 * the Renyi divergence is computed by quadrature at integer and fractional orders alike, and is infinite where the
 * quadrature would not converge. Conversion: Canonne, Kamath, Steinke (arXiv 2004.00010), Proposition 12.
 */
export class RdpAccountant implements Accountant {
  readonly name = 'rdp'
  readonly #log: EventLog
  readonly #moments = new Map<LossModel, Map<number, number>>()
  readonly #losses = new Map<string, readonly LossModel[]>()

  constructor(options: RdpOptions = {}) {
    this.#log = new EventLog(options.relation)
  }

  get relation(): NeighboringRelation {
    return this.#log.relation
  }

  get events(): readonly CountedEvent[] {
    return this.#log.events
  }

  compose(event: DpEvent, count = 1): this {
    this.#log.add(event, requireCount(count), (part) => directedLosses(part, this.relation, this.name))
    return this
  }

  /**
   * The Renyi divergence of order alpha > 1 of everything composed, the larger of adding and removing.
   */
  rdp(alpha: number): number {
    let [remove, add] = [0, 0]
    for (const { event, count } of this.events) {
      const losses = this.#directions(event)
      if (losses.length === 0) continue
      const first = count * this.#logMoment(losses[0]!, alpha)
      remove += first
      add += losses[1] ? count * this.#logMoment(losses[1], alpha) : first
    }
    return Math.max(remove, add, 0) / (alpha - 1)
  }

  epsilon(delta: number): EpsilonBounds {
    requireDelta(delta)
    const rest = -Math.expm1(Math.log1p(-delta) - this.#logFinite())
    const least = this.#minimise((alpha, divergence) => {
      return divergence + Math.log1p(-1 / alpha) - Math.log(rest * alpha) / (alpha - 1)
    })
    const epsilon = this.#isEmpty() ? 0 : rest > 0 ? Math.max(0, least) : Number.POSITIVE_INFINITY
    return { epsilon, lowerBound: 0, upperBound: epsilon }
  }

  delta(epsilon: number): DeltaBounds {
    requireEpsilon(epsilon)
    const least = this.#minimise((alpha, divergence) => {
      return (alpha - 1) * (divergence - epsilon + Math.log1p(-1 / alpha)) - Math.log(alpha)
    })
    const finite = Math.min(1, Math.exp(least))
    const delta = this.#isEmpty() ? 0 : finite - (1 - finite) * Math.expm1(this.#logFinite())
    return { delta, lowerBound: 0, upperBound: delta }
  }

  /** log of the probability that no loss is infinite by nature. */
  #logFinite(): number {
    return this.events.reduce((sum, { event, count }) => {
      const loss = this.#directions(event)[0]
      return loss ? sum + count * Math.log1p(-loss.infinite) : sum
    }, 0)
  }

  #isEmpty(): boolean {
    return this.events.every(({ event }) => this.#directions(event).length === 0)
  }

  #directions(event: DpEvent): readonly LossModel[] {
    const key = JSON.stringify(event)
    let losses = this.#losses.get(key)
    if (!losses) {
      const found = directedLosses(event, this.relation, this.name)
      losses = found ? (found.add ? [found.remove, found.add] : [found.remove]) : []
      this.#losses.set(key, losses)
    }
    return losses
  }

  #logMoment(loss: LossModel, alpha: number): number {
    let moments = this.#moments.get(loss)
    if (!moments) {
      moments = new Map()
      this.#moments.set(loss, moments)
    }
    let moment = moments.get(alpha)
    if (moment === undefined) {
      moment = loss.logMoment(alpha)
      moments.set(alpha, moment)
    }
    return moment
  }

  /** The smallest value over alpha > 1: a grid that is logarithmic in alpha - 1, then golden sections around its best. */
  #minimise(bound: (alpha: number, divergence: number) => number): number {
    const [low, high] = [Math.log(LEAST_ORDER - 1), Math.log(LARGEST_ORDER - 1)]
    const at = (position: number) => {
      const alpha = 1 + Math.exp(position)
      const divergence = this.rdp(alpha)
      return divergence === Number.POSITIVE_INFINITY ? divergence : bound(alpha, divergence)
    }
    const step = (high - low) / (GRID - 1)
    let best = Number.POSITIVE_INFINITY
    let centre = low
    let rises = 0
    for (let i = 0; i < GRID && rises < 6; i++) {
      const value = at(low + i * step)
      if (value < best) {
        best = value
        centre = low + i * step
        rises = 0
      } else if (best < Number.POSITIVE_INFINITY) rises++
    }
    let [a, b] = [centre - step, centre + step]
    const ratio = (Math.sqrt(5) - 1) / 2
    let [c, d] = [b - ratio * (b - a), a + ratio * (b - a)]
    let [atC, atD] = [at(c), at(d)]
    for (let i = 0; i < 20; i++) {
      best = Math.min(best, atC, atD)
      centre = atC <= atD ? c : d
      if (atC <= atD) {
        ;[b, d, atD] = [d, c, atC]
        c = b - ratio * (b - a)
        atC = at(c)
      } else {
        ;[a, c, atC] = [c, d, atD]
        d = a + ratio * (b - a)
        atD = at(d)
      }
    }
    // Bounds that are only known at integers have corners there.
    const alpha = 1 + Math.exp(centre)
    if (alpha < 1e6)
      for (const order of [Math.max(2, Math.floor(alpha)), Math.ceil(alpha)])
        best = Math.min(best, at(Math.log(order - 1)))
    return best
  }
}
