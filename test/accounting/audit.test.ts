import normalQuantile from '@stdlib/stats-base-dists-normal-quantile'
import t from 'tap'
import {
  auditEpsilon,
  auditEpsilonOneRun,
  auditEpsilonOneRunFdp,
  clopperPearsonUpper,
} from '../../lib/accounting/index.js'

const COUNT = 10_000
const options = { significance: 0.05, delta: 1e-6 }
/** Quantiles of the normal distribution: what COUNT scores would be without chance. */
const outside = Float64Array.from({ length: COUNT }, (_, i) => normalQuantile((i + 0.5) / COUNT, 0, 1))

t.test('one run: the values of jax_privacy', (t) => {
  for (const [shift, byCounts, byTradeOff] of [
    [0, 0, 0],
    [1, 1.13346, 2.164749],
    [2, 2.311945, 4.7218075],
    [4, 4.395568, 9.133752],
  ] as const) {
    const inside = outside.map((score) => score + shift)
    const counted = auditEpsilonOneRun(inside, outside, options)
    const traded = auditEpsilonOneRunFdp(inside, outside, options)
    t.ok(Math.abs(counted - byCounts) <= 1e-5 * Math.max(byCounts, 1), `shift ${shift}: ${counted}`)
    t.ok(Math.abs(traded - byTradeOff) <= 1e-5 * Math.max(byTradeOff, 1), `shift ${shift}, f-DP: ${traded}`)
  }
  t.end()
})

t.test('many runs: nothing without a difference, more with a larger one, less than the truth', (t) => {
  let last = -1
  for (const shift of [0, 0.5, 1, 2]) {
    const inside = outside.map((score) => score + shift)
    const epsilon = auditEpsilon(inside, outside, { ...options, threshold: shift })
    t.ok(epsilon > last || (shift === 0 && epsilon === 0), `shift ${shift}: ${epsilon}`)
    t.same(auditEpsilon(Array.from(inside), Array.from(outside), { ...options, threshold: shift }), epsilon)
    last = epsilon
  }
  t.end()
})

t.test('many runs: the closed form where every guess is right', (t) => {
  const [inside, beyond] = [new Float64Array(100).fill(1), new Float64Array(100)]
  const { significance, delta } = options
  // Two rates in two directions share the significance; no error in 100 trials: 1 - significance^(1 / 100).
  const error = 1 - (significance / 4) ** 0.01
  const epsilon = auditEpsilon(inside, beyond, { ...options, threshold: 0.5 })
  t.ok(Math.abs(epsilon - Math.log((1 - error - delta) / error)) < 1e-9, `${epsilon}`)
  // Two of the three points of the curve's hull say nothing; all three share the significance.
  const all = 1 - (significance / 12) ** 0.01
  t.ok(Math.abs(auditEpsilon(inside, beyond, options) - Math.log((1 - all - delta) / all)) < 1e-9)
  t.end()
})

t.test('Clopper-Pearson: known values', (t) => {
  // No success in n trials: 1 - significance^(1 / n). One of two: the root of (1 - p)^2 + 2 p (1 - p) = significance.
  t.ok(Math.abs(clopperPearsonUpper(0, 100, 0.05) - (1 - 0.05 ** 0.01)) < 1e-12)
  t.ok(Math.abs(clopperPearsonUpper(1, 2, 0.05) - Math.sqrt(0.95)) < 1e-12)
  t.equal(clopperPearsonUpper(7, 7, 0.05), 1)
  t.end()
})

t.test('bad input is named', (t) => {
  t.throws(() => auditEpsilon([], [1], options), { name: 'OutOfRangeError', message: /scores/ })
  t.throws(() => auditEpsilon([Number.NaN], [1], options), { name: 'OutOfRangeError', message: /scores, got NaN/ })
  t.throws(() => auditEpsilonOneRun([1], [1], { ...options, significance: 1 }), { message: /significance, got 1/ })
  t.throws(() => auditEpsilonOneRun([1], [1], { delta: 0 }), { message: /delta, got 0/ })
  t.end()
})
