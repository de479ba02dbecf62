import { OutOfRangeError } from '../errors.js'
import type { Accountant, AccountantName } from './accountant.js'
import { gaussian, poissonSampled, selfComposed } from './event-builders.js'
import type { DpEvent, NeighboringRelation } from './events.js'
import {
  MAX_COUNT,
  MAX_NOISE_MULTIPLIER,
  MIN_DELTA,
  MIN_NOISE_MULTIPLIER,
  requireCount,
  requireDelta,
  requireEpsilon,
  requireNoiseMultiplier,
  requireSampleRate,
} from './numbers.js'
import { PldAccountant } from './pld.js'
import { RdpAccountant } from './rdp.js'

/** DP-SGD in five numbers. */
export interface DpSgdParameters {
  readonly epsilon: number
  readonly delta: number
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
}

export type SolveRequest = Partial<DpSgdParameters> & {
  /** Default 'zero-out'. */
  readonly relation?: NeighboringRelation
  /** Default 'pld'. */
  readonly accountant?: AccountantName
  /** What one step does; the more noise and the rarer a unit, the less it may cost. Default: a Poisson-sampled Gaussian. */
  readonly step?: (noiseMultiplier: number, sampleRate: number) => DpEvent
}

export interface Solution extends DpSgdParameters {
  readonly lowerBound: number
  readonly upperBound: number
  readonly accountant: AccountantName
  readonly relation: NeighboringRelation
}

const NAMES = ['epsilon', 'delta', 'noiseMultiplier', 'sampleRate', 'steps'] as const
/** What is aimed at is met from below within this fraction. */
const MET = 1e-5
/** Most of the target that is left for another library's rounding. */
const MOST_LEFT = 9e-4
/** Interval of dp_accounting's default lattice. */
const PEER_INTERVAL = 1e-4

/** The same of a search with a coarse accountant, and that accountant's tolerance. */
const COARSE = { met: 1e-3, tolerance: 5e-3 }

/** A fresh accountant of the given kind. */
export function createAccountant(name: AccountantName = 'pld', relation: NeighboringRelation = 'zero-out'): Accountant {
  if (name === 'pld') return new PldAccountant({ relation })
  if (name === 'rdp') return new RdpAccountant({ relation })
  throw new OutOfRangeError('accountant', "'pld' or 'rdp'", name)
}

/**
 * Finds the one of (epsilon, delta, noiseMultiplier, sampleRate, steps) that is left out, for DP-SGD: `steps`
 * Poisson-sampled Gaussian releases, or what `step` says.
 *
 * Guarantee: where epsilon is given, the solution's own epsilon (recomputed with the same accountant) never exceeds it,
 * and is within 0.1 % of it unless the answer is a whole number of steps or the end of its range. In the solution,
 * `epsilon` is the certified upper bound at the numbers found.
 *
 * | left out | answer |
 * |---|---|
 * | epsilon, delta | the certified upper bound |
 * | noiseMultiplier | the least that keeps epsilon, in [0.01, 1e6] |
 * | sampleRate | the largest that keeps epsilon, at most 1 |
 * | steps | the most that keep epsilon, at most 1e9 |
 *
 * @throws OutOfRangeError when not exactly one is left out, one is out of range, or no value keeps epsilon.
 */
export function solve(request: SolveRequest): Solution {
  const missing = NAMES.filter((name) => request[name] === undefined)
  if (missing.length !== 1) {
    const given = NAMES.filter((name) => request[name] !== undefined)
    throw new OutOfRangeError(
      'solve',
      `exactly one of ${NAMES.join(', ')} left out`,
      `only ${given.join(', ') || 'none'}`,
    )
  }
  if (request.epsilon !== undefined) requireEpsilon(request.epsilon)
  if (request.delta !== undefined) requireDelta(request.delta)
  if (request.noiseMultiplier !== undefined) requireNoiseMultiplier(request.noiseMultiplier)
  if (request.sampleRate !== undefined) requireSampleRate(request.sampleRate)
  if (request.steps !== undefined) requireCount(request.steps, 'steps')
  const search = new Search(request)
  switch (missing[0]!) {
    case 'epsilon':
      return search.solution({})
    case 'delta': {
      const { delta } = search.accountant({}).delta(request.epsilon!)
      return search.solution({ delta: Math.max(delta, MIN_DELTA), epsilon: request.epsilon! })
    }
    case 'noiseMultiplier':
      return search.noiseMultiplier()
    case 'sampleRate':
      return search.sampleRate()
    case 'steps':
      return search.steps()
  }
}

function poissonGaussian(noiseMultiplier: number, sampleRate: number): DpEvent {
  return poissonSampled(sampleRate, gaussian(noiseMultiplier))
}

class Search {
  readonly #request: SolveRequest
  readonly #target: number

  constructor(request: SolveRequest) {
    this.#request = request
    this.#target = request.epsilon ?? 0
  }

  accountant(found: Partial<DpSgdParameters>): Accountant {
    return createAccountant(this.#request.accountant, this.#request.relation).compose(this.#event(found))
  }

  solution(found: Partial<DpSgdParameters>): Solution {
    const { delta, noiseMultiplier, sampleRate, steps } = { ...this.#request, ...found }
    const accountant = this.accountant(found)
    const bounds = accountant.epsilon(delta!)
    return {
      ...bounds,
      epsilon: found.epsilon ?? bounds.epsilon,
      delta: delta!,
      noiseMultiplier: noiseMultiplier!,
      sampleRate: sampleRate!,
      steps: steps!,
      accountant: accountant.name,
      relation: accountant.relation,
    }
  }

  noiseMultiplier(): Solution {
    const at = (logSigma: number) => ({ noiseMultiplier: Math.exp(logSigma) })
    const [low, high] = [Math.log(MIN_NOISE_MULTIPLIER), Math.log(MAX_NOISE_MULTIPLIER)]
    const range = { least: -high, most: -low, start: 0, step: 0.5 }
    return this.solution(this.#largest('noiseMultiplier', (u) => at(-u), range))
  }

  sampleRate(): Solution {
    const range = { least: Math.log(1e-12), most: 0, start: Math.log(0.01), step: 0.5 }
    return this.solution(this.#largest('sampleRate', (u) => ({ sampleRate: Math.exp(u) }), range))
  }

  steps(): Solution {
    const fits = (steps: number, coarse = false) => this.#epsilon({ steps }, coarse) <= this.#target
    // A coarse search says where to look; its answer is checked, and moved by as little as it takes.
    const guess = largestCount((steps) => fits(steps, true), 0, 1, MAX_COUNT)
    if (fits(guess)) return this.solution({ steps: largestCount(fits, guess, 1, MAX_COUNT) })
    let [low, reach] = [guess - 1, 1]
    while (low > 0 && !fits(low)) {
      reach *= 8
      low = Math.max(0, guess - reach)
    }
    return this.solution({ steps: largestCount(fits, low, Math.max(1, reach >> 3), guess - 1) })
  }

  #epsilon(found: Partial<DpSgdParameters>, coarse: boolean): number {
    const { accountant: name = 'pld', relation } = this.#request
    const accountant =
      coarse && name === 'pld'
        ? new PldAccountant({ relation, tolerance: COARSE.tolerance }).compose(this.#event(found))
        : this.accountant(found)
    return accountant.epsilon(this.#request.delta!).epsilon
  }

  #event(found: Partial<DpSgdParameters>): DpEvent {
    const { noiseMultiplier, sampleRate, steps } = { ...this.#request, ...found }
    const step = this.#request.step ?? poissonGaussian
    return selfComposed(steps!, step(noiseMultiplier!, sampleRate!))
  }

  /**
   * The part of the target that is left, so that dp_accounting confirms the answer: its lattice adds up to interval^2 / 6
   * to the variance of each step's loss, and epsilon is some sqrt(2 log(1 / delta)) standard deviations of their sum.
   */
  #left(): number {
    const { accountant = 'pld', steps, delta } = this.#request
    if (accountant !== 'pld' || this.#target === 0) return 0
    const added = (steps! * PEER_INTERVAL ** 2) / 6
    return Math.min(MOST_LEFT, 5e-6 + (added * -Math.log(delta!)) / this.#target ** 2)
  }

  /**
   * The largest u in [least, most] whose epsilon, which increases with u, does not exceed the target: looked for with a
   * coarse accountant, settled with the one that answers.
   */
  #largest(parameter: string, at: (u: number) => Partial<DpSgdParameters>, range: Range): Partial<DpSgdParameters> {
    const target = this.#target * (1 - this.#left())
    const excess = (coarse: boolean) => (u: number) => {
      const epsilon = this.#epsilon(at(u), coarse)
      return epsilon === 0 ? -Number.MAX_VALUE : Math.log(epsilon / target)
    }
    const guess = lastBelow(excess(true), COARSE.met, range)
    const settled = lastBelow(excess(false), MET, { ...range, start: guess ?? range.start, step: 1e-3 })
    if (settled === undefined) {
      throw new OutOfRangeError('epsilon', `a target that some ${parameter} keeps`, this.#target)
    }
    return at(settled)
  }
}

/** Where a search may go, where it starts and how far its first step goes. */
interface Range {
  readonly least: number
  readonly most: number
  readonly start: number
  readonly step: number
}

/**
 * The last u in [least, most] at which an increasing function is at most 0; the search stops where it is above -met. Regula
 * falsi, with bisection where that stalls. Undefined where the function is positive at `least`.
 */
function lastBelow(
  excess: (u: number) => number,
  met: number,
  { least, most, start, step }: Range,
): number | undefined {
  let [low, high] = [start, start]
  let [below, above] = [excess(start), 0]
  if (below <= 0) {
    for (let reach = step; ; reach *= 2) {
      if (below > -met || low === most) return low
      high = Math.min(most, low + reach)
      above = excess(high)
      if (above > 0) break
      ;[low, below] = [high, above]
    }
  } else {
    above = below
    for (let reach = step; ; reach *= 2) {
      low = Math.max(least, high - reach)
      below = excess(low)
      if (below <= 0) break
      if (low === least) return undefined
      ;[high, above] = [low, below]
    }
  }
  for (let iteration = 0; iteration < 100 && below < -met && high - low > 1e-12; iteration++) {
    // Aim a little below the target, where the answer has to be.
    const share = (-0.5 * met - below) / (above - below)
    const usable = Number.isFinite(share) && iteration % 3 !== 2
    const u = usable ? low + Math.min(0.98, Math.max(0.02, share)) * (high - low) : 0.5 * (low + high)
    const value = excess(u)
    if (value <= 0) [low, below] = [u, value]
    else [high, above] = [u, value]
  }
  return low
}

/** The largest count in [low, most] that fits; `low` does. The first step goes `reach` up. */
function largestCount(fits: (count: number) => boolean, low: number, reach: number, most: number): number {
  let [last, next] = [low, Math.min(most, low + reach)]
  for (let step = reach; last < most && fits(next); step *= 4) {
    last = next
    next = Math.min(most, next + step * 4)
  }
  while (next - last > 1) {
    const geometric = last > 0 && next > 4 * last
    const middle = Math.round(geometric ? Math.sqrt(last * next) : 0.5 * (last + next))
    if (fits(middle)) last = middle
    else next = middle
  }
  return last
}
