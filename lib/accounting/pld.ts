import { OutOfRangeError } from '../errors.js'
import { type Accountant, type DeltaBounds, type EpsilonBounds, EventLog } from './accountant.js'
import { type Bracket, Composition } from './composition.js'
import { directedLosses } from './directed-losses.js'
import type { CountedEvent, DpEvent, NeighboringRelation } from './events.js'
import { isWithin, requireCount, requireDelta, requireEpsilon } from './numbers.js'
import type { CountedLoss } from './truncated-loss.js'

/** Relative width of the bracket that a PldAccountant reaches where nothing else is asked. */
export const DEFAULT_TOLERANCE = 1e-3

export interface PldOptions {
  /** Default 'zero-out'. */
  readonly relation?: NeighboringRelation
  /** Relative width of the bracket around epsilon (or delta) to reach, in [1e-6, 0.5]. Default 1e-3. */
  readonly tolerance?: number
}

/**
 * The default accountant: privacy loss distributions, composed by FFT, from above and from below.
 *
 * Guarantee: `lowerBound <= the exact value <= upperBound` for the worst pair of neighbours of each event, with the loss
 * of removing and that of adding a unit composed apart and compared at the end. The exact value is that of the
 * mechanism over real numbers; floating-point noise is another matter.
 *
 * | case | answer |
 * |---|---|
 * | no events, count 0, sampleRate 0 | epsilon 0, delta 0 |
 * | delta above what the mechanism has at epsilon 0 | epsilon 0 |
 * | delta = 0 or below 1e-30 | OutOfRangeError |
 * | an event without a dominating pair here | OutOfRangeError that names it |
 *
 * Method: losses are put on a lattice with connect-the-dots (upper) and tangents (lower), tilted by e^(theta L) so that
 * float64 keeps its relative accuracy at any delta, and convolved in a window outside which Chernoff's bound leaves a
 * stated mass. The lattice is refined until the bracket is narrow enough. Where 2^21 points are not enough for that (rare
 * participation, below 1e-3, with little noise, below 0.6), the bracket is wider, and still holds.
 */
export class PldAccountant implements Accountant {
  readonly name = 'pld'
  readonly tolerance: number
  readonly #log: EventLog
  readonly #answers = new Map<string, Bracket>()

  constructor(options: PldOptions = {}) {
    this.#log = new EventLog(options.relation)
    this.tolerance = options.tolerance ?? DEFAULT_TOLERANCE
    if (!isWithin(this.tolerance, 1e-6, 0.5)) {
      throw new OutOfRangeError('tolerance', 'a number in [1e-6, 0.5]', this.tolerance)
    }
  }

  get relation(): NeighboringRelation {
    return this.#log.relation
  }

  get events(): readonly CountedEvent[] {
    return this.#log.events
  }

  compose(event: DpEvent, count = 1): this {
    this.#log.add(event, requireCount(count), (part) => directedLosses(part, this.relation, 'pld'))
    this.#answers.clear()
    return this
  }

  epsilon(delta: number): EpsilonBounds {
    requireDelta(delta)
    const { lower, upper } = this.#answer(`epsilon ${delta}`, (composition, floor) => composition.epsilon(delta, floor))
    return { epsilon: upper, lowerBound: lower, upperBound: upper }
  }

  delta(epsilon: number): DeltaBounds {
    requireEpsilon(epsilon)
    const { lower, upper } = this.#answer(`delta ${epsilon}`, (composition) => composition.delta(epsilon))
    return { delta: upper, lowerBound: lower, upperBound: upper }
  }

  #answer(question: string, ask: (composition: Composition, floor?: number) => Bracket): Bracket {
    const known = this.#answers.get(question)
    if (known) return known
    const remove: CountedLoss[] = []
    const add: CountedLoss[] = []
    for (const { event, count } of this.events) {
      const losses = directedLosses(event, this.relation, 'pld')
      if (!losses) continue
      remove.push({ model: losses.remove, count })
      add.push({ model: losses.add ?? losses.remove, count })
    }
    const symmetric = add.every(({ model }, i) => model === remove[i]!.model)
    let answer = ask(new Composition(remove, this.tolerance))
    // Where delta exceeds the total variation distance, which is the same in both directions, epsilon is 0 in both.
    if (!symmetric && answer.upper > 0) {
      const other = ask(new Composition(add, this.tolerance), answer.lower)
      answer = { lower: Math.max(answer.lower, other.lower), upper: Math.max(answer.upper, other.upper) }
    }
    this.#answers.set(question, answer)
    return answer
  }
}
