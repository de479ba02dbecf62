import { invalid, OutOfRangeError } from '../errors.js'
import { requireCount, requireNoiseMultiplier, requireSampleRate } from './numbers.js'

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
export type DpEvent = GaussianEvent | PoissonSampledEvent | SelfComposedEvent | ComposedEvent

/** @throws OutOfRangeError when noiseMultiplier is not in [0.01, 1e6]. */
export function gaussian(noiseMultiplier: number): GaussianEvent {
  return { type: 'gaussian', noiseMultiplier: requireNoiseMultiplier(noiseMultiplier) }
}

/** @throws OutOfRangeError when sampleRate is not in [0, 1]. */
export function poissonSampled(sampleRate: number, event: DpEvent): PoissonSampledEvent {
  return { type: 'poisson-sampled', sampleRate: requireSampleRate(sampleRate), event }
}

/** @throws OutOfRangeError when count is not a whole number in [0, 1e9]. */
export function selfComposed(count: number, event: DpEvent): SelfComposedEvent {
  return { type: 'self-composed', count: requireCount(count), event }
}

export function composed(...events: readonly DpEvent[]): ComposedEvent {
  return { type: 'composed', events }
}

/**
 * DP-SGD: `steps` Gaussian releases, each on a Poisson-sampled batch.
 *
 * @throws OutOfRangeError when an argument is outside its range.
 */
export function dpSgd(noiseMultiplier: number, sampleRate: number, steps: number): SelfComposedEvent {
  return selfComposed(steps, poissonSampled(sampleRate, gaussian(noiseMultiplier)))
}

/** An event that is no composition, and how often it happened. */
export interface CountedEvent {
  readonly event: DpEvent
  readonly count: number
}

/** Takes compositions apart: their order does not matter, only how often each event happened. */
export function flatten(event: DpEvent, count = 1): CountedEvent[] {
  switch (event.type) {
    case 'composed':
      return event.events.flatMap((inner) => flatten(inner, count))
    case 'self-composed':
      return flatten(event.event, requireCount(count * requireCount(event.count)))
    default:
      return count === 0 ? [] : [{ event, count }]
  }
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

/** One sentence for an event that is not an event at all. */
export function unknownEvent(event: unknown): TypeError {
  return new TypeError(invalid('event', 'a privacy event with a known type', JSON.stringify(event)))
}
