import type { AccountantName } from './accountant.js'
import { composed, dpSgd } from './event-builders.js'
import type { ComposedEvent, DpEvent, NeighboringRelation } from './events.js'
import { MAX_COUNT, requireDelta, requireEpsilon } from './numbers.js'
import { createAccountant } from './solve.js'

/** Equal steps of DP-SGD, as a ledger records them. */
export interface LedgerSegment {
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
}

/** The event of a partial or resumed run: its segments, whatever their noise and sampling rate, compose. */
export function ledgerEvent(segments: readonly LedgerSegment[]): ComposedEvent {
  return composed(
    ...segments.map(({ noiseMultiplier, sampleRate, steps }) => dpSgd(noiseMultiplier, sampleRate, steps)),
  )
}

export interface BudgetOptions {
  readonly epsilon: number
  readonly delta: number
  /** Default 'pld'. */
  readonly accountant?: AccountantName
  /** Default 'zero-out'. */
  readonly relation?: NeighboringRelation
}

/**
 * An (epsilon, delta) that several runs over the same data share.
 *
 * Guarantee: what `spend` accepted, taken together, never exceeds the budget; it refuses what would, and then has spent
 * nothing.
 */
export class PrivacyBudget {
  readonly #options: BudgetOptions
  readonly #events: DpEvent[] = []

  /** @throws OutOfRangeError when epsilon or delta is outside its range. */
  constructor(options: BudgetOptions) {
    requireEpsilon(options.epsilon)
    requireDelta(options.delta)
    this.#options = options
  }

  /** Epsilon at the budget's delta of everything spent, certified. */
  get spent(): number {
    return this.#epsilonWith()
  }

  /** Whether `event` still fits. */
  allows(event: DpEvent): boolean {
    return this.#epsilonWith(event) <= this.#options.epsilon
  }

  /**
   * Records an event.
   *
   * @throws RangeError when the event would exceed the budget; nothing is recorded then.
   */
  spend(event: DpEvent): void {
    const after = this.#epsilonWith(event)
    if (!(after <= this.#options.epsilon)) {
      const { epsilon, delta } = this.#options
      throw new RangeError(
        `Expected an event within the budget of epsilon ${epsilon} at delta ${delta}, got epsilon ${after} with it`,
      )
    }
    this.#events.push(event)
  }

  /** How many more times `event` fits, at most 1e9. */
  remaining(event: DpEvent): number {
    const fits = (count: number) => this.#epsilonWith(event, count) <= this.#options.epsilon
    if (!fits(1)) return 0
    let [low, high] = [1, 2]
    while (high < MAX_COUNT && fits(high)) {
      low = high
      high = Math.min(MAX_COUNT, high * 4)
    }
    if (high === MAX_COUNT && fits(high)) return high
    while (high - low > 1) {
      const middle = Math.floor((low + high) / 2)
      if (fits(middle)) low = middle
      else high = middle
    }
    return low
  }

  #epsilonWith(event?: DpEvent, count = 1): number {
    const accountant = createAccountant(this.#options.accountant, this.#options.relation)
    for (const spent of this.#events) accountant.compose(spent)
    if (event) accountant.compose(event, count)
    return accountant.epsilon(this.#options.delta).epsilon
  }
}
