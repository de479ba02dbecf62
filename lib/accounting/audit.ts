import normalCdf from '@stdlib/stats-base-dists-normal-cdf'
import normalQuantile from '@stdlib/stats-base-dists-normal-quantile'
import { OutOfRangeError } from '../errors.js'
import { type AuditCounts, auditCounts, clopperPearsonUpper } from './audit-counts.js'
import { binomialTails, upperTailOfBinomial } from './binomial.js'
import { gaussianNoiseMultiplier } from './gaussian-mechanism.js'

export interface AuditOptions {
  /** Allowed probability that the bound is wrong. Default 0.05. */
  readonly significance?: number
  /** delta of the claim that is tested. */
  readonly delta: number
  /** One threshold, fixed beforehand. Default: all on the ROC curve's hull, with a Bonferroni correction for their number. */
  readonly threshold?: number
}

/**
 * A lower bound on epsilon from many independent runs, one canary each: Clopper-Pearson bounds on the rates of both errors
 * (Nasr et al., arXiv 2302.07956), in both directions. 0 where nothing can be said.
 *
 * Holds with probability 1 - significance for a threshold fixed beforehand; over all thresholds the Bonferroni correction
 * counts those on the hull, as jax_privacy does, although which those are is itself read from the scores.
 *
 * @throws OutOfRangeError for significance or delta outside (0, 1), or scores that are empty or not numbers.
 */
export function auditEpsilon(
  memberScores: ArrayLike<number>,
  nonMemberScores: ArrayLike<number>,
  options: AuditOptions,
): number {
  const { candidates, significance } = prepare(memberScores, nonMemberScores, options)
  const half = significance / 4 // two rates, two directions
  let best = 0
  for (const { truePositives, falsePositives, members, nonMembers } of candidates) {
    const missed = clopperPearsonUpper(members - truePositives, members, half)
    const falseAlarms = clopperPearsonUpper(falsePositives, nonMembers, half)
    for (const [right, wrong] of [
      [1 - missed, falseAlarms],
      [1 - falseAlarms, missed],
    ] as const) {
      if (right > options.delta) best = Math.max(best, Math.log((right - options.delta) / wrong))
    }
  }
  return best
}

/**
 * A lower bound on epsilon from one run with many canaries, each a member by a fair coin (Steinke, Nasr, Jagielski, arXiv
 * 2305.08846, Theorem 5.2): were the run (epsilon, delta)-DP, this many right guesses would have a probability below the
 * significance.
 */
export function auditEpsilonOneRun(
  memberScores: ArrayLike<number>,
  nonMemberScores: ArrayLike<number>,
  options: AuditOptions,
): number {
  return bestOfOneRun(memberScores, nonMemberScores, options, (guesses, right, canaries, significance) => {
    const withoutDelta = (epsilon: number) => upperTailOfBinomial(right - 1, guesses, logistic(epsilon))
    return (epsilon) => {
      if (withoutDelta(epsilon) > significance) return false
      return oneRunPValue(canaries, guesses, right, epsilon, options.delta) < significance
    }
  })
}

/**
 * A lower bound on epsilon from one run, by f-DP (Mahloujifar, Melis, Chaudhuri, arXiv 2410.22235): tighter, and a claim
 * about Gaussian trade-off curves: the curve of the Gaussian mechanism that is (epsilon, delta)-DP is what is refuted.
 */
export function auditEpsilonOneRunFdp(
  memberScores: ArrayLike<number>,
  nonMemberScores: ArrayLike<number>,
  options: AuditOptions,
): number {
  return bestOfOneRun(memberScores, nonMemberScores, options, (guesses, right, canaries, significance) => (epsilon) => {
    const shift = 1 / gaussianNoiseMultiplier(epsilon, options.delta)
    let rightMass = (significance * right) / canaries
    let wrongMass = (significance * (guesses - right)) / canaries
    for (let i = right - 1; i >= 0; i--) {
      const next = Math.max(wrongMass, normalCdf(normalQuantile(rightMass, 0, 1) - shift, 0, 1))
      if (next === wrongMass) break
      rightMass = Math.min(1, rightMass + (i / (guesses - i)) * (next - wrongMass))
      wrongMass = next
    }
    return rightMass + wrongMass > guesses / canaries
  })
}

type Refutes = (epsilon: number) => boolean

function bestOfOneRun(
  memberScores: ArrayLike<number>,
  nonMemberScores: ArrayLike<number>,
  options: AuditOptions,
  test: (guesses: number, right: number, canaries: number, significance: number) => Refutes,
): number {
  const { candidates, significance } = prepare(memberScores, nonMemberScores, options)
  // Most promising first, so that most others fail at the best epsilon so far without a search.
  const promising = (counts: AuditCounts) => {
    const guesses = counts.truePositives + counts.falsePositives
    const share = counts.truePositives / guesses
    return share - 3 * Math.sqrt((share * (1 - share) + 1 / guesses) / guesses)
  }
  let best = 0
  for (const counts of candidates.toSorted((a, b) => promising(b) - promising(a))) {
    const { truePositives: right, falsePositives, members, nonMembers } = counts
    const guesses = right + falsePositives
    if (guesses === 0 || right / guesses <= logistic(best)) continue
    const refutes = test(guesses, right, members + nonMembers, significance)
    if (!refutes(best)) continue
    let [low, high] = [best, Math.max(1, 2 * best)]
    while (refutes(high)) [low, high] = [high, 2 * high]
    while (high - low > 1e-7) {
      const middle = 0.5 * (low + high)
      if (refutes(middle)) low = middle
      else high = middle
    }
    best = low
  }
  return best
}

/** Probability of `right` or more right guesses under (epsilon, delta)-DP, at most. */
function oneRunPValue(canaries: number, guesses: number, right: number, epsilon: number, delta: number): number {
  const tails = binomialTails(guesses, logistic(epsilon)) // tails[k] = P(X >= k)
  const tail = tails[right]!
  let slack = 0
  for (let i = 1; i <= right; i++) slack = Math.max(slack, (tails[right - i]! - tail) / i)
  return Math.min(1, tail + 2 * canaries * delta * slack)
}

function prepare(memberScores: ArrayLike<number>, nonMemberScores: ArrayLike<number>, options: AuditOptions) {
  const { significance = 0.05, delta, threshold } = options
  if (!(significance > 0 && significance < 1))
    throw new OutOfRangeError('significance', 'a number in (0, 1)', significance)
  if (!(delta > 0 && delta < 1)) throw new OutOfRangeError('delta', 'a number in (0, 1)', delta)
  const hull = auditCounts(memberScores, nonMemberScores)
  if (threshold === undefined) return { candidates: hull, significance: significance / hull.length }
  const above = (scores: ArrayLike<number>) => Array.from(scores).filter((score) => score >= threshold).length
  const counts: AuditCounts = {
    threshold,
    truePositives: above(memberScores),
    falsePositives: above(nonMemberScores),
    members: memberScores.length,
    nonMembers: nonMemberScores.length,
  }
  return { candidates: [counts], significance }
}

function logistic(x: number): number {
  return 1 / (1 + Math.exp(-x))
}
