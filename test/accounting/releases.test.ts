import t from 'tap'
import {
  adaptiveClippingNoiseMultiplier,
  composed,
  createAccountant,
  dpSgd,
  EpsilonCurve,
  effectiveNoiseMultiplier,
  gaussian,
  gaussianDelta,
  gaussianEpsilon,
  gaussianRho,
  groupDelta,
  groupPrivacy,
  jointReleases,
  ledgerEvent,
  PldAccountant,
  PrivacyBudget,
  poissonSampled,
} from '../../lib/accounting/index.js'

t.test('joint releases: whatever the weights, one Gaussian with the noise multiplier', (t) => {
  for (const weights of [[1], [0.5, 0.5], [0.98, 0.015, 0.005]]) {
    const releases = weights.map((weight, i) => ({ name: `release ${i}`, bound: 0.3 * 10 ** i, weight }))
    const noisy = jointReleases(1.3, releases)
    noisy.forEach(({ bound, weight, standardDeviation }) => {
      t.ok(Math.abs(standardDeviation - (1.3 * bound) / Math.sqrt(weight)) < 1e-12 * standardDeviation)
    })
    t.ok(Math.abs(effectiveNoiseMultiplier(noisy) - 1.3) < 1e-12)
  }
  const two = (weights: number[]) =>
    jointReleases(
      1,
      weights.map((weight) => ({ name: 'r', bound: 1, weight })),
    )
  t.throws(() => two([0.5, 0.6]), { name: 'OutOfRangeError', message: /sum to 1/ })
  t.throws(() => two([1.5, -0.5]), { name: 'OutOfRangeError', message: /weight/ })
  t.throws(() => jointReleases(1, [{ name: 'r', bound: 0, weight: 1 }]), { name: 'OutOfRangeError', message: /bound/ })
  t.end()
})

t.test("adaptive clipping's quantile is a release of bound 1 / 2", (t) => {
  const gradient = adaptiveClippingNoiseMultiplier(1, 5)
  const both = effectiveNoiseMultiplier([
    { bound: 1, standardDeviation: gradient },
    { bound: 0.5, standardDeviation: 5 },
  ])
  t.ok(Math.abs(both - 1) < 1e-12)
  t.throws(() => adaptiveClippingNoiseMultiplier(1, 0.5), { name: 'OutOfRangeError', message: /countDeviation/ })
  t.end()
})

t.test('a resumed run: segments with other noise or sampling compose, in any order', (t) => {
  const segments = [
    { noiseMultiplier: 1.1, sampleRate: 0.01, steps: 300 },
    { noiseMultiplier: 1.4, sampleRate: 0.02, steps: 200 },
  ]
  const epsilon = (parts: typeof segments) => new PldAccountant().compose(ledgerEvent(parts)).epsilon(1e-5)
  const whole = new PldAccountant().compose(composed(dpSgd(1.1, 0.01, 300), dpSgd(1.4, 0.02, 200))).epsilon(1e-5)
  t.same(epsilon(segments), whole)
  const reversed = epsilon([...segments].reverse())
  t.ok(reversed.lowerBound <= whole.upperBound && whole.lowerBound <= reversed.upperBound)
  const split = [segments[0]!, { ...segments[1]!, steps: 120 }, { ...segments[1]!, steps: 80 }]
  t.same(epsilon(split), whole)
  const only = (part: (typeof segments)[number]) => epsilon([part]).lowerBound
  t.ok(whole.upperBound > Math.max(only(segments[0]!), only(segments[1]!)))
  t.end()
})

t.test('a budget says what is left and refuses what would exceed it', (t) => {
  const budget = new PrivacyBudget({ epsilon: 2, delta: 1e-5, accountant: 'rdp' })
  const step = poissonSampled(0.02, gaussian(1.2))
  const all = budget.remaining(step)
  const cost = (count: number) => createAccountant('rdp').compose(step, count).epsilon(1e-5).epsilon
  t.ok(cost(all) <= 2 && cost(all + 1) > 2)
  for (let i = 0; i < 2; i++) budget.spend({ type: 'self-composed', count: 100, event: step })
  t.ok(Math.abs(budget.spent - cost(200)) < 1e-12)
  t.equal(budget.remaining(step), all - 200)
  const spent = budget.spent
  t.throws(() => budget.spend(gaussian(0.5)), { name: 'RangeError', message: /budget of epsilon 2 at delta 0.00001/ })
  t.equal(budget.spent, spent)
  t.ok(budget.allows(step) && !budget.allows(gaussian(0.5)))
  t.end()
})

t.test('group privacy: k units, from the guarantee and from the curve', (t) => {
  t.same(groupPrivacy(0.5, 0, 3), { epsilon: 1.5, delta: 0 })
  t.ok(Math.abs(groupPrivacy(1, 1e-6, 2).delta - 1e-6 * (1 + Math.E)) < 1e-18)
  t.same(groupPrivacy(0, 1e-6, 4), { epsilon: 0, delta: 4e-6 })
  // A Gaussian's group of k is a Gaussian with k times the sensitivity; the general bound is no better than that.
  const accountant = new PldAccountant().compose(gaussian(5))
  t.ok(groupDelta(accountant, 2, 3) >= gaussianDelta(5, 2, 3))
  t.throws(() => groupPrivacy(1, 0, 0), { name: 'OutOfRangeError', message: /size, got 0/ })
  t.equal(gaussianRho(2), 0.125)
  t.end()
})

t.test('the closed form holds where e^epsilon overflows', (t) => {
  t.equal(gaussianDelta(0.01, 1000, 10), 1)
  const epsilon = gaussianEpsilon(0.01, 1e-5, 10)
  t.ok(epsilon > 5e5 && epsilon < 5.1e5)
  t.ok(Math.abs(gaussianDelta(0.01, epsilon, 10) / 1e-5 - 1) < 1e-6)
  t.end()
})

t.test('the curve for display keeps within 1 % of the accountant', (t) => {
  const event = poissonSampled(0.02, gaussian(1.1))
  const curve = new EpsilonCurve({ event, delta: 1e-5 })
  t.equal(curve.at(0), 0)
  for (const steps of [1, 100, 384, 1000]) {
    const { epsilon } = new PldAccountant().compose(event, steps).epsilon(1e-5)
    t.ok(Math.abs(curve.at(steps) / epsilon - 1) < 0.02, `${steps}: ${curve.at(steps)} and ${epsilon}`)
  }
  t.end()
})
