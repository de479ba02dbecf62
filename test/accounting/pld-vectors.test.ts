import t, { type Test } from 'tap'
import { Composition } from '../../lib/accounting/composition.js'
import { directedLosses } from '../../lib/accounting/directed-losses.js'
import {
  composed,
  type DpEvent,
  dpSgd,
  epsilonDelta,
  gaussian,
  gaussianDelta,
  gaussianEpsilon,
  mixtureOfGaussians,
  type NeighboringRelation,
  PldAccountant,
  poissonSampled,
  selfComposed,
  solve,
  tradeOffCurve,
  truncatedPoissonSampled,
  zcdp,
} from '../../lib/accounting/index.js'
import { MixturePair } from '../../lib/accounting/mixture-pair.js'

const pld = (event: DpEvent, relation: NeighboringRelation = 'zero-out') =>
  new PldAccountant({ relation }).compose(event)

const brackets = (
  t: Test,
  { lowerBound, upperBound }: { lowerBound: number; upperBound: number },
  exact: number,
  label: string,
) => {
  const slack = 1e-11 * exact
  t.ok(
    lowerBound <= exact + slack && exact - slack <= upperBound,
    `${label}: ${lowerBound} <= ${exact} <= ${upperBound}`,
  )
}

t.test('one or many Gaussians are one Gaussian', (t) => {
  for (const steps of [9999, 10000]) {
    for (const epsilon of [0.1, 1, 10, 100]) {
      const exact = gaussianDelta(100 / Math.sqrt(steps), epsilon)
      brackets(t, pld(dpSgd(100, 1, steps)).delta(epsilon), exact, `${steps} steps at ${epsilon}`)
    }
  }
  const mixed = composed(selfComposed(50, gaussian(10)), selfComposed(50, gaussian(5)))
  brackets(t, pld(mixed).delta(4), gaussianDelta(1 / Math.sqrt(0.5 + 2), 4), 'sigma 10 and 5')
  t.end()
})

t.test('a Gaussian beside a sampled one that is nearly sure: between q = 1 and without it', (t) => {
  const beside = pld(composed(selfComposed(20, gaussian(5)), dpSgd(5, 0.9999, 30))).epsilon(1e-6)
  t.ok(beside.upperBound <= gaussianEpsilon(5 / Math.sqrt(50), 1e-6) * (1 + 1e-3))
  t.ok(beside.lowerBound >= gaussianEpsilon(5 / Math.sqrt(49), 1e-6))
  t.end()
})

t.test('truncated Poisson sampling: identities, and the exact masses of dp_accounting on a lattice of 1', (t) => {
  const truncated = (sampleRate: number, N: number, B: number) => truncatedPoissonSampled(sampleRate, N, B, gaussian(1))
  const same = (left: DpEvent, right: DpEvent, relation: NeighboringRelation, label: string) => {
    const [a, b] = [pld(left).epsilon(1e-6), pld(right, relation).epsilon(1e-6)]
    t.ok(Math.abs(a.upperBound / b.upperBound - 1) < 1e-4, `${label}: ${a.upperBound} and ${b.upperBound}`)
  }
  // Every unit is drawn and B of N kept: a replacement of twice the size, by the chance B / N.
  same(truncated(1, 1000, 100), poissonSampled(0.1, gaussian(0.5)), 'replace-one', 'q = 1')
  same(truncated(0.1, 1000, 1000), poissonSampled(0.1, gaussian(1)), 'zero-out', 'B = N')
  same(truncated(1, 1000, 1000), gaussian(1), 'zero-out', 'q = 1, B = N')
  for (const [N, direction, masses] of [
    [
      3,
      'remove',
      [0.4602291776623483, 0.3971752461977371, 0.028230690898060747, 0.017026874561262836, 0.0018974410822616694],
    ],
    [
      3,
      'add',
      [0.31663233170683847, 0.4825182550792128, 0.028230690898060747, 0.017026874561262836, 0.0018974410822616694],
    ],
    [
      4,
      'remove',
      [0.425429708116903, 0.40641942991487245, 0.053075111787205725, 0.031098596901848144, 0.0013822140810422073],
    ],
    [
      4,
      'add',
      [0.32969847747989645, 0.4633147691691896, 0.053075111787205725, 0.031098596901848144, 0.0013822140810422073],
    ],
  ] as const) {
    const losses = directedLosses(truncated(0.5, N, 2), 'add-or-remove-one', 'pld')!
    const composition = new Composition([{ model: losses[direction]!, count: 1 }], 1e-4)
    const infinite = 1 - masses.reduce((sum, mass) => sum + mass, 0)
    for (let epsilon = 0; epsilon < 4; epsilon++) {
      // Their losses are rounded up to whole numbers, so their delta is an upper bound; rounded down, a lower one.
      const rounded = (by: number) =>
        masses.reduce((sum, mass, loss) => sum + mass * Math.max(0, -Math.expm1(epsilon - loss + by)), 0)
      const { lower, upper } = composition.delta(epsilon)
      t.ok(
        upper <= rounded(0) + infinite,
        `N ${N}, ${direction}, eps ${epsilon}: ${upper} at most ${rounded(0) + infinite}`,
      )
      t.ok(lower >= rounded(1), `N ${N}, ${direction}, eps ${epsilon}: ${lower} at least ${rounded(1)}`)
    }
  }
  t.end()
})

t.test('mixtures of Gaussians: both directions of dp_accounting', (t) => {
  for (const [sensitivities, probabilities, add, remove] of [
    [[0, 1, 2], [0.2, 0.6, 0.2], 0.036691263832032806, 0.15768284088654105],
    [[2, 0, 3, 0.5], [0.4, 0.1, 0.2, 0.3], 0.09379446981341562, 0.3456419720394463],
  ] as const) {
    const event = mixtureOfGaussians(1, sensitivities, probabilities)
    const losses = directedLosses(event, 'zero-out', 'pld')!
    for (const [model, exact] of [
      [losses.add!, add],
      [losses.remove, remove],
    ] as const) {
      const { lower, upper } = new Composition([{ model, count: 1 }], 1e-6).delta(1)
      t.ok(lower <= exact && exact <= upper && upper - lower < 2e-6 * exact, `${lower} <= ${exact} <= ${upper}`)
    }
    brackets(t, pld(event).delta(1), remove, 'the worse of both')
  }
  const pair = new MixturePair(
    1,
    [0, 1, 2].map((mean, i) => ({ mean, weight: [0.2, 0.6, 0.2][i]! })),
    [{ mean: 0, weight: 1 }],
  )
  // Their x is the noisy value on the data set without the unit; adding is the same pair, mirrored and reversed.
  t.ok(Math.abs(-pair.loss(0.5) - 0.1351602748368097) < 1e-14)
  t.ok(Math.abs(pair.loss(-0.5) - -0.8423781325734492) < 1e-14)

  t.end()
})

t.test('the trade-off curve of a Gaussian', (t) => {
  const accountant = pld(gaussian(1))
  for (const [rate, power] of [
    [1e-3, 0.0183],
    [1e-4, 0.003274],
    [1e-5, 0.0005475],
    [1e-6, 8.7218e-5],
    [1e-7, 1.3385e-5],
    [1e-8, 1.99405e-6],
    [1e-9, 2.8993e-7],
    [1e-10, 4.1303e-8],
  ] as const) {
    const [point] = tradeOffCurve(accountant, [rate])
    t.ok(Math.abs(point!.truePositiveRate / power - 1) < 1e-3, `${rate}: ${point!.truePositiveRate} and ${power}`)
  }
  t.same(
    tradeOffCurve(accountant, [0, 1]).map(({ truePositiveRate }) => truePositiveRate > 0.999),
    [false, true],
  )
  t.end()
})

t.test('(epsilon, delta) events: below advanced composition, infinite where the deltas alone exceed delta', (t) => {
  const thirty = pld(selfComposed(30, epsilonDelta(1, 0.001)))
  t.ok(thirty.epsilon(0.06).upperBound <= 22)
  t.ok(thirty.epsilon(0.1).upperBound <= 20)
  t.equal(pld(selfComposed(30, epsilonDelta(1, 0.01))).epsilon(0.26).epsilon, Number.POSITIVE_INFINITY)
  brackets(t, pld(epsilonDelta(1, 0.001)).delta(1), 0.001, 'one')
  const shifted = pld(composed(gaussian(2), epsilonDelta(0, 0.01))).epsilon(0.02)
  brackets(t, shifted, gaussianEpsilon(2, 1 - 0.98 / 0.99), 'shifted by one')
  const ten = pld(composed(gaussian(2), selfComposed(10, epsilonDelta(0, 0.001)))).epsilon(0.02)
  brackets(t, ten, gaussianEpsilon(2, 1 - 0.98 / 0.999 ** 10), 'shifted by ten')
  t.end()
})

t.test('nothing done costs nothing; what it cannot handle is refused by name', (t) => {
  const nothing = { epsilon: 0, lowerBound: 0, upperBound: 0 }
  t.same(new PldAccountant().epsilon(1e-5), nothing)
  t.same(pld(dpSgd(1, 0, 1000)).epsilon(1e-5), nothing)
  t.same(pld(dpSgd(1, 0.5, 0)).epsilon(1e-5), nothing)
  t.same(pld(dpSgd(1, 0, 1000)).delta(0), { delta: 0, lowerBound: 0, upperBound: 0 })
  t.throws(() => pld(zcdp(0.1)), { name: 'OutOfRangeError', message: /PLD.*zcdp/ })
  t.throws(() => pld({ type: 'laplace' } as unknown as DpEvent), { name: 'OutOfRangeError', message: /laplace/ })
  t.throws(() => new PldAccountant().compose(gaussian(1), -1), { name: 'OutOfRangeError', message: /count, got -1/ })
  t.throws(() => pld(dpSgd(4, 0.00038, 1)).epsilon(1e-31), { name: 'OutOfRangeError', message: /delta, got 1e-31/ })
  t.end()
})

t.test('tails that underflow elsewhere', (t) => {
  const far = pld(dpSgd(4, 0.00038, 1)).epsilon(1.13e-18)
  t.ok(far.lowerBound > 0 && far.upperBound - far.lowerBound <= 1e-3 * far.upperBound)
  t.end()
})

t.test('calibration where prv_accountant overflowed or warned', (t) => {
  for (const [sampleRate, steps, epsilon, delta] of [
    [2e-3, 10000, 4, 1e-7],
    [0.26058631921824105, 18800, 4, 1.1448e-4],
    [256 / 50000, 9765, 10, 1e-5],
  ] as const) {
    const solution = solve({ sampleRate, steps, epsilon, delta })
    t.ok(solution.noiseMultiplier > 0.1 && solution.noiseMultiplier < 100, `${solution.noiseMultiplier}`)
    t.ok(solution.epsilon <= epsilon && solution.epsilon >= 0.999 * epsilon, `${solution.epsilon} of ${epsilon}`)
  }
  t.ok(solve({ sampleRate: 2e-3, steps: 10000, epsilon: 4, delta: 1e-7 }).noiseMultiplier < 2)
  t.end()
})

t.test('events survive JSON', (t) => {
  const event = composed(dpSgd(1.1, 0.01, 300), mixtureOfGaussians(2, [0, 1], [0.9, 0.1]), gaussian(7))
  t.same(pld(JSON.parse(JSON.stringify(event))).epsilon(1e-6), pld(event).epsilon(1e-6))
  t.end()
})
