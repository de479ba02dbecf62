import { OutOfRangeError } from '../errors.js'
import type { Accountant, AccountantName } from './accountant.js'
import { dpSgd } from './event-builders.js'
import type { NeighboringRelation } from './events.js'
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
}

export interface Solution extends DpSgdParameters {
  readonly lowerBound: number
  readonly upperBound: number
  readonly accountant: AccountantName
  readonly relation: NeighboringRelation
}

const NAMES = ['epsilon', 'delta', 'noiseMultiplier', 'sampleRate', 'steps'] as const
/** The target epsilon is met from below within this fraction. */
const MET = 5e-4

/** A fresh accountant of the given kind. */
export function createAccountant(name: AccountantName = 'pld', relation: NeighboringRelation = 'zero-out'): Accountant {
  if (name === 'pld') return new PldAccountant({ relation })
  if (name === 'rdp') return new RdpAccountant({ relation })
  throw new OutOfRangeError('accountant', "'pld' or 'rdp'", name)
}

/**
 * Finds the one of (epsilon, delta, noiseMultiplier, sampleRate, steps) that is left out, for DP-SGD: `steps`
 * Poisson-sampled Gaussian releases.
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

class Search {
  readonly #request: SolveRequest
  readonly #target: number

  constructor(request: SolveRequest) {
    this.#request = request
    this.#target = request.epsilon ?? 0
  }

  accountant(found: Partial<DpSgdParameters>): Accountant {
    const { noiseMultiplier, sampleRate, steps } = { ...this.#request, ...found }
    const accountant = createAccountant(this.#request.accountant, this.#request.relation)
    return accountant.compose(dpSgd(noiseMultiplier!, sampleRate!, steps!))
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
    return this.solution(this.#largest('noiseMultiplier', (u) => at(-u), -high, -low, 0))
  }

  sampleRate(): Solution {
    const low = Math.log(1e-12)
    return this.solution(this.#largest('sampleRate', (u) => ({ sampleRate: Math.exp(u) }), low, 0, Math.log(0.01)))
  }

  steps(): Solution {
    if (!(this.#epsilon({ steps: 1 }) <= this.#target)) return this.solution({ steps: 0 })
    let [low, high] = [1, 2]
    while (high < MAX_COUNT && this.#epsilon({ steps: high }) <= this.#target) {
      low = high
      high = Math.min(MAX_COUNT, high * 8)
    }
    if (high === MAX_COUNT && this.#epsilon({ steps: high }) <= this.#target) return this.solution({ steps: high })
    while (high - low > 1) {
      const middle = Math.round(high - low > 4 ? Math.sqrt(low * high) : 0.5 * (low + high))
      const next = Math.min(high - 1, Math.max(low + 1, middle))
      if (this.#epsilon({ steps: next }) <= this.#target) low = next
      else high = next
    }
    return this.solution({ steps: low })
  }

  #epsilon(found: Partial<DpSgdParameters>): number {
    return this.accountant(found).epsilon(this.#request.delta!).epsilon
  }

  /**
   * The largest u in [least, most] whose epsilon, which increases with u, does not exceed the target; it stops where the
   * target is met within MET. Regula falsi on log epsilon, with bisection where that stalls.
   */
  #largest(
    parameter: string,
    at: (u: number) => Partial<DpSgdParameters>,
    least: number,
    most: number,
    start: number,
  ): Partial<DpSgdParameters> {
    const excess = (u: number) => {
      const epsilon = this.#epsilon(at(u))
      return epsilon === 0 ? -Number.MAX_VALUE : Math.log(epsilon / this.#target)
    }
    let [low, high] = [start, start]
    let [below, above] = [excess(start), 0]
    if (below <= 0) {
      for (let step = 0.5; ; step *= 2) {
        if (below > -MET) return at(low)
        high = Math.min(most, low + step)
        above = excess(high)
        if (above > 0) break
        if (high === most) return at(most)
        ;[low, below] = [high, above]
      }
    } else {
      above = below
      for (let step = 0.5; ; step *= 2) {
        low = Math.max(least, high - step)
        below = excess(low)
        if (below <= 0) break
        if (low === least) {
          throw new OutOfRangeError('epsilon', `a target that some ${parameter} keeps`, this.#target)
        }
        ;[high, above] = [low, below]
      }
    }
    for (let iteration = 0; iteration < 100 && below < -MET && high - low > 1e-12; iteration++) {
      // Aim a little below the target, where the answer has to be.
      const share = (-0.5 * MET - below) / (above - below)
      const usable = Number.isFinite(share) && iteration % 3 !== 2
      const u = usable ? low + Math.min(0.98, Math.max(0.02, share)) * (high - low) : 0.5 * (low + high)
      const value = excess(u)
      if (value <= 0) [low, below] = [u, value]
      else [high, above] = [u, value]
    }
    return at(low)
  }
}
