import { type Accountant, type DeltaBounds, type EpsilonBounds, EventLog } from './accountant.js'
import { dominatingPairs } from './dominating-pairs.js'
import type { CountedEvent, DpEvent, NeighboringRelation } from './events.js'
import type { MixturePair } from './mixture-pair.js'
import { requireCount, requireDelta, requireEpsilon } from './numbers.js'
import { logMoment } from './renyi.js'

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
  readonly #moments = new Map<MixturePair, Map<number, number>>()
  readonly #pairs = new Map<string, readonly MixturePair[]>()

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
    this.#log.add(event, requireCount(count), (part) => this.#directions(part))
    return this
  }

  /**
   * The Renyi divergence of order alpha > 1 of everything composed, the larger of adding and removing.
   */
  rdp(alpha: number): number {
    let [remove, add] = [0, 0]
    for (const { event, count } of this.events) {
      const pairs = this.#directions(event)
      if (pairs.length === 0) continue
      const first = count * this.#logMoment(pairs[0]!, alpha)
      remove += first
      add += pairs[1] ? count * this.#logMoment(pairs[1], alpha) : first
    }
    return Math.max(remove, add, 0) / (alpha - 1)
  }

  epsilon(delta: number): EpsilonBounds {
    requireDelta(delta)
    const least = this.#minimise((alpha, divergence) => {
      return divergence + Math.log1p(-1 / alpha) - Math.log(delta * alpha) / (alpha - 1)
    })
    const epsilon = this.#isEmpty() ? 0 : Math.max(0, least)
    return { epsilon, lowerBound: 0, upperBound: epsilon }
  }

  delta(epsilon: number): DeltaBounds {
    requireEpsilon(epsilon)
    const least = this.#minimise((alpha, divergence) => {
      return (alpha - 1) * (divergence - epsilon + Math.log1p(-1 / alpha)) - Math.log(alpha)
    })
    const delta = this.#isEmpty() ? 0 : Math.min(1, Math.exp(least))
    return { delta, lowerBound: 0, upperBound: delta }
  }

  #isEmpty(): boolean {
    return this.events.every(({ event }) => this.#directions(event).length === 0)
  }

  #directions(event: DpEvent): readonly MixturePair[] {
    const key = JSON.stringify(event)
    let pairs = this.#pairs.get(key)
    if (!pairs) {
      const found = dominatingPairs(event, this.relation)
      pairs = found ? (found.add ? [found.remove, found.add] : [found.remove]) : []
      this.#pairs.set(key, pairs)
    }
    return pairs
  }

  #logMoment(pair: MixturePair, alpha: number): number {
    let moments = this.#moments.get(pair)
    if (!moments) {
      moments = new Map()
      this.#moments.set(pair, moments)
    }
    let moment = moments.get(alpha)
    if (moment === undefined) {
      moment = logMoment(pair, alpha)
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
    return best
  }
}
