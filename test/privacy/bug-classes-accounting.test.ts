// The bug classes of DP libraries that concern accounting, by the numbers of docs/privacy-tests.md.
import t from 'tap'
import {
  adaptiveClippingNoiseMultiplier,
  createAccountant,
  dpSgd,
  effectiveNoiseMultiplier,
  fixedSizeSampled,
  gaussian,
  groupDelta,
  groupPrivacy,
  jointReleases,
  selfComposed,
  solve,
} from '../../lib/accounting/index.js'
import { Device } from '../../lib/engine/device.js'
import { sgd } from '../../lib/optim/sgd.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { tinyModel } from '../support/models.js'

const relations = ['zero-out', 'add-or-remove-one', 'replace-one'] as const

t.test('bug class 4: Poisson and fixed-size samples are not taken for each other', (t) => {
  const fixed = selfComposed(100, fixedSizeSampled(1000, 10, gaussian(1)))
  for (const relation of ['zero-out', 'add-or-remove-one'] as const) {
    for (const accountant of ['pld', 'rdp'] as const) {
      t.throws(() => createAccountant(accountant, relation).compose(fixed), /replace-one/, `${accountant} ${relation}`)
    }
  }
  const replaced = createAccountant('rdp', 'replace-one').compose(fixed).epsilon(1e-5).epsilon
  const poisson = createAccountant('rdp', 'zero-out')
    .compose(dpSgd(1, 0.01, 100))
    .epsilon(1e-5).epsilon
  t.ok(replaced > 1.5 * poisson, `${replaced} without replacement, ${poisson} Poisson`)
  t.end()
})

t.test('bug class 4: removing and adding are composed apart, the worse of them is reported', (t) => {
  // One step at rate 1/2: delta of removal exceeds that of addition at every epsilon > 0.
  const event = dpSgd(1, 0.5, 20)
  const epsilon = createAccountant('pld', 'add-or-remove-one').compose(event).epsilon(1e-5)
  const rdp = createAccountant('rdp', 'add-or-remove-one').compose(event).epsilon(1e-5).epsilon
  t.ok(epsilon.lowerBound <= epsilon.epsilon && epsilon.epsilon < rdp, `${epsilon.epsilon} below the ${rdp} of RDP`)
  t.ok(epsilon.upperBound - epsilon.lowerBound < 0.01 * epsilon.epsilon, 'a narrow bracket')
  t.end()
})

t.test('bug class 20: epsilon is never negative, falls with delta, and asking for it changes nothing', (t) => {
  for (const accountant of ['pld', 'rdp'] as const) {
    for (const relation of relations) {
      const made = createAccountant(accountant, relation)
      t.equal(made.epsilon(1e-6).epsilon, 0, `${accountant} ${relation}: nothing spent`)
      made.compose(dpSgd(2, 0.05, 300))
      const deltas = [1e-9, 1e-6, 1e-3, 0.1, 0.5, 0.999]
      const epsilons = deltas.map((delta) => made.epsilon(delta).epsilon)
      t.ok(
        epsilons.every((epsilon, i) => epsilon >= 0 && (i === 0 || epsilon <= epsilons[i - 1]!)),
        `${accountant} ${relation}: ${epsilons}`,
      )
      t.same(
        deltas.map((delta) => made.epsilon(delta).epsilon),
        epsilons,
        'asked again',
      )
      t.equal(made.events.length, 1)
      made.compose(dpSgd(2, 0.05, 1))
      t.ok(made.epsilon(1e-6).epsilon >= epsilons[1]!, 'a step more is never less')
    }
  }
  t.end()
})

t.test('bug class 20: the engine counts the steps that began', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const model = tinyModel(device)
  const engine = new PrivacyEngine()
  const training = engine.makePrivate({
    module: model,
    optimizer: sgd(model.parameters(), { learningRate: 0.1 }),
    data: { length: 1000 },
    noiseMultiplier: 2,
    maxGradNorm: 1,
    expectedBatchSize: 50,
    steps: 300,
  })
  t.equal(engine.epsilon(1e-6), 0)
  const failing = () => {
    throw new Error('broken')
  }
  for (let step = 0; step < 20; step++) await training.step(step, [], model.loss.bind(model))
  const before = engine.epsilon(1e-6)
  await t.rejects(training.step(20, [failing], model.loss.bind(model)), { message: 'broken' })
  const after = engine.epsilon(1e-6)
  t.ok(after > before, `${before} ${after}: a step that failed counts`)
  const expected = createAccountant('pld')
    .compose(dpSgd(2, 0.05, 21))
    .epsilon(1e-6).epsilon
  t.equal(after, expected, 'exactly the steps made')
})

t.test('bug class 21: the noise that is found never spends more than the target', (t) => {
  for (const accountant of ['pld', 'rdp'] as const) {
    for (const relation of relations) {
      for (const epsilon of [0.5, 3, 8]) {
        const found = solve({ accountant, relation, epsilon, delta: 1e-6, sampleRate: 0.02, steps: 500 })
        const again = createAccountant(accountant, relation).compose(dpSgd(found.noiseMultiplier, 0.02, 500))
        const spent = again.epsilon(1e-6).epsilon
        t.ok(spent <= epsilon && spent > 0.99 * epsilon, `${accountant} ${relation}: ${spent} of ${epsilon}`)
      }
    }
  }
  t.end()
})

t.test('bug class 22: releases of one step share its budget', (t) => {
  const releases = jointReleases(0.8, [
    { name: 'gradient', bound: 2, weight: 1 / 1.02 },
    { name: 'loads', bound: 1.5, weight: 0.02 / 1.02 },
  ])
  t.ok(Math.abs(effectiveNoiseMultiplier(releases) - 0.8) < 1e-12, 'together they are one release')
  t.ok(
    Math.abs(releases[0]!.standardDeviation - 0.8 * 2 * Math.sqrt(1.02)) < 1e-12,
    'one per cent more on the gradient',
  )
  const apart = effectiveNoiseMultiplier(releases.map(({ bound }) => ({ bound, standardDeviation: 0.8 * bound })))
  t.ok(Math.abs(apart - 0.8 / Math.SQRT2) < 1e-12, 'noise for each apart would be too little')
  for (const weights of [
    [0.5, 0.4],
    [1, 1],
    [1.1, -0.1],
  ]) {
    const wrong = weights.map((weight, i) => ({ name: `${i}`, bound: 1, weight }))
    t.throws(() => jointReleases(1, wrong), /sum to 1/, `${weights}`)
  }
  const [z, deviation] = [1, 4]
  const gradient = adaptiveClippingNoiseMultiplier(z, deviation)
  t.ok(Math.abs(gradient - 1 / Math.sqrt(1 - 1 / 64)) < 1e-12, 'adaptive clipping: (z^-2 - (2 deviation)^-2)^-1/2')
  for (const tooSmall of [0.5, 0.4, 0]) t.throws(() => adaptiveClippingNoiseMultiplier(1, tooSmall), /countDeviation/)
  t.end()
})

t.test('bug class 23: a record that occurs k times costs what a group of k costs', (t) => {
  const three = groupPrivacy(0.5, 1e-6, 3)
  t.ok(Math.abs(three.epsilon - 1.5) < 1e-12)
  const factor = 1 + Math.exp(0.5) + Math.exp(1)
  t.ok(Math.abs(three.delta - factor * 1e-6) < 1e-15, `${three.delta}`)
  t.same(groupPrivacy(0.5, 1e-6, 1), { epsilon: 0.5, delta: 1e-6 })
  const accountant = createAccountant('pld').compose(dpSgd(1, 0.05, 100))
  t.ok(groupDelta(accountant, 4, 2) > accountant.delta(4).delta, 'a group is protected less')
  t.end()
})
