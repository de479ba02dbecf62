import { OutOfRangeError } from '../errors.js'
import { requireCount } from './numbers.js'

/**
 * Which data sets count as neighbours. The noise's standard deviation is noiseMultiplier * C for all three.
 *
 * | relation | the neighbour | change of the clipped sum |
 * |---|---|---|
 * | `zero-out` | one unit's contribution is replaced by nothing; N is public | at most C |
 * | `add-or-remove-one` | one unit more or less; N is not public | at most C |
 * | `replace-one` | one unit is replaced by any other | at most 2 C |
 */
export type NeighboringRelation = 'zero-out' | 'add-or-remove-one' | 'replace-one'

export const NEIGHBORING_RELATIONS: readonly NeighboringRelation[] = ['zero-out', 'add-or-remove-one', 'replace-one']

/** A sum of contributions of norm at most C, plus noise of standard deviation noiseMultiplier * C. */
export interface GaussianEvent {
  readonly type: 'gaussian'
  readonly noiseMultiplier: number
}

/** `event` on a batch that each unit enters independently with probability `sampleRate`. */
export interface PoissonSampledEvent {
  readonly type: 'poisson-sampled'
  readonly sampleRate: number
  readonly event: DpEvent
}

/**
 * `event` on a Poisson-sampled batch of which at most `maxBatchSize` units, chosen at random, are kept: a batch of bounded
 * size, at a price, because a unit may push another one out.
 */
export interface TruncatedPoissonSampledEvent {
  readonly type: 'truncated-poisson-sampled'
  readonly sampleRate: number
  readonly datasetSize: number
  readonly maxBatchSize: number
  readonly event: DpEvent
}

/** `event` on `batchSize` of the `datasetSize` units, drawn without replacement. Relation replace-one only. */
export interface FixedSizeSampledEvent {
  readonly type: 'fixed-size-sampled'
  readonly datasetSize: number
  readonly batchSize: number
  readonly event: DpEvent
}

/**
 * A sum that the unit moves by a random multiple of C, sensitivities[i] with probability probabilities[i], plus noise of
 * standard deviation noiseMultiplier * C: for one, a user whose examples enter a batch independently.
 */
export interface MixtureOfGaussiansEvent {
  readonly type: 'mixture-of-gaussians'
  readonly noiseMultiplier: number
  readonly sensitivities: readonly number[]
  readonly probabilities: readonly number[]
}

/** Any rho-zCDP mechanism: Renyi divergence at most rho alpha at every order alpha. */
export interface ZcdpEvent {
  readonly type: 'zcdp'
  readonly rho: number
}

/** Any (epsilon, delta)-DP mechanism. */
export interface EpsilonDeltaEvent {
  readonly type: 'epsilon-delta'
  readonly epsilon: number
  readonly delta: number
}

/** `event`, `count` times, each time with fresh randomness; later ones may depend on earlier results. */
export interface SelfComposedEvent {
  readonly type: 'self-composed'
  readonly count: number
  readonly event: DpEvent
}

/** All of `events`, one after the other. */
export interface ComposedEvent {
  readonly type: 'composed'
  readonly events: readonly DpEvent[]
}

/** What was done to the data, as plain data: survives JSON, carries no code. */
export type DpEvent =
  | GaussianEvent
  | PoissonSampledEvent
  | TruncatedPoissonSampledEvent
  | FixedSizeSampledEvent
  | MixtureOfGaussiansEvent
  | ZcdpEvent
  | EpsilonDeltaEvent
  | SelfComposedEvent
  | ComposedEvent

/** An event that is no composition, and how often it happened. */
export interface CountedEvent {
  readonly event: DpEvent
  readonly count: number
}

/** Compositions within compositions; more is a mistake, or a loop. */
const DEEPEST = 100

/**
 * Takes compositions apart: their order does not matter, only how often each event happened.
 *
 * @throws OutOfRangeError for what is no event, a count out of range, or compositions nested more than 100 deep.
 */
export function flatten(event: DpEvent, count = 1, depth = 0): CountedEvent[] {
  if (depth > DEEPEST) throw new OutOfRangeError('event', `compositions at most ${DEEPEST} deep`, 'deeper ones')
  requireEvent(event)
  switch (event.type) {
    case 'composed':
      if (!Array.isArray(event.events)) throw new OutOfRangeError('events', 'a list of events', event.events)
      return event.events.flatMap((inner) => flatten(inner, count, depth + 1))
    case 'self-composed':
      return flatten(event.event, requireCount(count * requireCount(event.count)), depth + 1)
    default:
      return count === 0 ? [] : [{ event, count }]
  }
}

/** @throws OutOfRangeError when `event` is no object with a type. */
export function requireEvent(event: DpEvent): void {
  if (typeof event?.type !== 'string') throw new OutOfRangeError('event', 'an object with a type', event)
}

/** @throws OutOfRangeError when `relation` is none of the three. */
export function requireRelation(relation: NeighboringRelation): NeighboringRelation {
  if (!NEIGHBORING_RELATIONS.includes(relation)) {
    throw new OutOfRangeError('relation', `one of ${NEIGHBORING_RELATIONS.join(', ')}`, relation)
  }
  return relation
}

/** The error for an event that an accountant cannot handle; nothing is ever approximated silently. */
export function unsupportedEvent(accountant: string, event: { readonly type: string }, reason: string): RangeError {
  return new OutOfRangeError('event', `an event that the ${accountant} accountant can handle (${reason})`, event.type)
}
