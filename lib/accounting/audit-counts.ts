import { OutOfRangeError } from '../errors.js'
import { upperTailOfBinomial } from './binomial.js'

/** What an attack with one threshold gets: canaries with a score of at least the threshold are called members. */
export interface AuditCounts {
  readonly threshold: number
  readonly truePositives: number
  readonly falsePositives: number
  readonly members: number
  readonly nonMembers: number
}

/**
 * Counts at the thresholds on the upper hull of the attack's ROC curve; others are dominated by mixing two of these.
 *
 * @param memberScores scores of canaries that were trained on; higher means more like a member.
 * @throws OutOfRangeError when there is no score or one is not a number.
 */
export function auditCounts(memberScores: ArrayLike<number>, nonMemberScores: ArrayLike<number>): AuditCounts[] {
  const [inside, outside] = [memberScores, nonMemberScores].map((scores) => Float64Array.from(scores).sort())
  const all = [...new Set([...inside!, ...outside!])].sort((a, b) => a - b)
  if (inside!.length === 0 || outside!.length === 0) {
    throw new OutOfRangeError('scores', 'at least one score of a member and one of a non-member', 'none')
  }
  if (all.some(Number.isNaN)) throw new OutOfRangeError('scores', 'numbers', Number.NaN)
  const points: { threshold: number; missed: number; rejected: number }[] = []
  let [missed, rejected] = [0, 0]
  for (const threshold of [...all, Number.POSITIVE_INFINITY]) {
    while (missed < inside!.length && inside![missed]! < threshold) missed++
    while (rejected < outside!.length && outside![rejected]! < threshold) rejected++
    const next = { threshold, missed, rejected }
    // Keep the points where the curve (missed, rejected) turns to the right.
    while (points.length >= 2 && !turnsRight(points[points.length - 2]!, points[points.length - 1]!, next)) points.pop()
    points.push(next)
  }
  return points.map(({ threshold, missed: misses, rejected: rejections }) => ({
    threshold,
    truePositives: inside!.length - misses,
    falsePositives: outside!.length - rejections,
    members: inside!.length,
    nonMembers: outside!.length,
  }))
}

type Point = { readonly missed: number; readonly rejected: number }

function turnsRight(a: Point, b: Point, c: Point): boolean {
  return (b.rejected - a.rejected) * (c.missed - b.missed) > (c.rejected - b.rejected) * (b.missed - a.missed)
}

/**
 * Clopper-Pearson: the p at which `successes` or fewer of `trials` has probability `significance`; with confidence
 * 1 - significance the true rate is below it.
 */
export function clopperPearsonUpper(successes: number, trials: number, significance: number): number {
  if (successes >= trials) return 1
  let [low, high] = [successes / trials, 1]
  for (let iteration = 0; iteration < 60; iteration++) {
    const middle = 0.5 * (low + high)
    // The smaller tail is the accurate one: P(X <= k) is the upper tail of the failures.
    const atMost = upperTailOfBinomial(trials - successes - 1, trials, 1 - middle)
    if (atMost > significance) low = middle
    else high = middle
  }
  return high
}
