import type { AccountantName } from './accountant.js'
import { selfComposed } from './event-builders.js'
import type { DpEvent, NeighboringRelation } from './events.js'
import { requireCount, requireDelta } from './numbers.js'
import { PldAccountant } from './pld.js'
import { createAccountant } from './solve.js'

export interface EpsilonCurveOptions {
  /** What one step does. */
  readonly event: DpEvent
  readonly delta: number
  /** Default 'pld'. */
  readonly accountant?: AccountantName
  /** Default 'zero-out'. */
  readonly relation?: NeighboringRelation
}

/** Tolerance that is enough for display. */
const COARSE = 5e-3

/**
 * Epsilon after k equal steps, cheap enough to ask after every step: the accountant is asked at k = 1, 2, 4, 8, ... only,
 * when k first passes them, and values between are interpolated.
 *
 * An estimate for display, within about 1 %; never write it into a certificate. Ask an accountant for that.
 */
export class EpsilonCurve {
  readonly #options: EpsilonCurveOptions
  readonly #known = new Map<number, number>()

  /** @throws OutOfRangeError for a delta out of range or an event that the accountant cannot handle. */
  constructor(options: EpsilonCurveOptions) {
    requireDelta(options.delta)
    createAccountant(options.accountant, options.relation).compose(options.event, 0)
    this.#options = options
  }

  /** Epsilon after `steps` steps, about. */
  at(steps: number): number {
    if (requireCount(steps, 'steps') === 0) return 0
    const before = 2 ** Math.floor(Math.log2(steps))
    if (before === steps) return this.#knot(steps)
    const [low, high] = [this.#knot(before), this.#knot(2 * before)]
    if (low === 0) return (high * (steps - before)) / before
    // Epsilon is nearly a power of the number of steps.
    return low * (high / low) ** Math.log2(steps / before)
  }

  #knot(steps: number): number {
    let value = this.#known.get(steps)
    if (value === undefined) {
      const { event, delta, accountant = 'pld', relation } = this.#options
      const asked =
        accountant === 'pld'
          ? new PldAccountant({ relation, tolerance: COARSE })
          : createAccountant(accountant, relation)
      value = asked.compose(selfComposed(steps, event)).epsilon(delta).epsilon
      this.#known.set(steps, value)
    }
    return value
  }
}
