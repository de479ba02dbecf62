import { OutOfRangeError } from '../errors.js'
import type { Accountant } from './accountant.js'

/** A point that no attack on one unit's membership can be above. */
export interface TradeOffPoint {
  readonly falsePositiveRate: number
  readonly truePositiveRate: number
}

/**
 * The most true positives that an attack with a given rate of false positives can have:
 * min over epsilon >= 0 of e^epsilon fpr + delta(epsilon) and 1 - e^-epsilon (1 - delta(epsilon) - fpr).
 *
 * Each point asks the accountant for some 25 values of delta. Certified: delta is an upper bound, so the curve is too.
 *
 * @throws OutOfRangeError when a rate is not in [0, 1].
 */
export function tradeOffCurve(accountant: Accountant, falsePositiveRates: readonly number[]): TradeOffPoint[] {
  const known = new Map<number, number>()
  const delta = (epsilon: number) => {
    let value = known.get(epsilon)
    if (value === undefined) {
      value = accountant.delta(epsilon).delta
      known.set(epsilon, value)
    }
    return value
  }
  return falsePositiveRates.map((rate) => {
    if (!(rate >= 0 && rate <= 1)) throw new OutOfRangeError('falsePositiveRate', 'a number in [0, 1]', rate)
    const low = (epsilon: number) => Math.exp(epsilon) * rate + delta(epsilon)
    const high = (epsilon: number) => 1 - Math.exp(-epsilon) * (1 - delta(epsilon) - rate)
    const best = Math.min(minimise(low), minimise(high), 1)
    return { falsePositiveRate: rate, truePositiveRate: Math.max(rate, best) }
  })
}

/** The minimum over epsilon >= 0 of a function with one valley: doubling, then golden sections. */
function minimise(value: (epsilon: number) => number): number {
  let best = value(0)
  let top = 0.125
  for (let at = value(top); at <= best && top < 500; at = value(top)) {
    best = at
    top *= 2
  }
  const ratio = (Math.sqrt(5) - 1) / 2
  let [a, b] = [0, top]
  let [c, d] = [b - ratio * b, ratio * b]
  let [atC, atD] = [value(c), value(d)]
  for (let i = 0; i < 18; i++) {
    best = Math.min(best, atC, atD)
    if (atC <= atD) {
      ;[b, d, atD] = [d, c, atC]
      c = b - ratio * (b - a)
      atC = value(c)
    } else {
      ;[a, c, atC] = [c, d, atD]
      d = a + ratio * (b - a)
      atD = value(d)
    }
  }
  return best
}
