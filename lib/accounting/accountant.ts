import { type CountedEvent, type DpEvent, flatten, type NeighboringRelation, requireRelation } from './events.js'

export type AccountantName = 'pld' | 'rdp'

/** What an accountant says of epsilon. Never negative, never NaN; infinite where nothing finite can be promised. */
export interface EpsilonBounds {
  /** The certified value: the upper bound. */
  readonly epsilon: number
  /** No accountant can certify less than this; 0 where the accountant has no lower bound. */
  readonly lowerBound: number
  readonly upperBound: number
}

/** What an accountant says of delta, in [0, 1]. */
export interface DeltaBounds {
  /** The certified value: the upper bound. */
  readonly delta: number
  readonly lowerBound: number
  readonly upperBound: number
}

/** Adds up what a sequence of mechanisms costs. */
export interface Accountant {
  readonly name: AccountantName
  readonly relation: NeighboringRelation
  /**
   * Adds an event, `count` times.
   *
   * @throws OutOfRangeError for an event this accountant cannot handle, by name, and for a parameter out of range.
   */
  compose(event: DpEvent, count?: number): this
  /** The events so far, merged: equal events are counted together. */
  readonly events: readonly CountedEvent[]
  /**
   * Smallest epsilon for `delta`. Pure: asking changes nothing.
   *
   * @throws OutOfRangeError when delta is not in [1e-30, 1).
   */
  epsilon(delta: number): EpsilonBounds
  /**
   * Smallest delta for `epsilon`. Pure: asking changes nothing.
   *
   * @throws OutOfRangeError when epsilon is not finite or negative.
   */
  delta(epsilon: number): DeltaBounds
}

/** The events that an accountant was given, with equal ones counted together. */
export class EventLog {
  readonly relation: NeighboringRelation
  readonly #counted = new Map<string, CountedEvent>()

  constructor(relation: NeighboringRelation = 'zero-out') {
    this.relation = requireRelation(relation)
  }

  /** `check` throws for an event that the accountant cannot handle; then nothing is added. */
  add(event: DpEvent, count: number, check: (event: DpEvent) => void): void {
    const parts = flatten(event, count)
    for (const part of parts) check(part.event)
    for (const part of parts) {
      const key = JSON.stringify(part.event)
      const before = this.#counted.get(key)?.count ?? 0
      this.#counted.set(key, { event: part.event, count: before + part.count })
    }
  }

  get events(): readonly CountedEvent[] {
    return [...this.#counted.values()]
  }
}
