// The bug classes of DP libraries that concern batches, by the numbers of docs/privacy-tests.md.
// Not here: 15 and the part of 14 about ranks, which need several processes.
import t from 'tap'
import { meanPerUnit } from '../../lib/autograd/embedding.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { accumulateGradients, sumSink } from '../../lib/nn/accumulate.js'
import type { BatchCoupled } from '../../lib/nn/mixture-of-experts.js'
import type { ForwardContext } from '../../lib/nn/module.js'
import { sgd } from '../../lib/optim/sgd.js'
import { clippedGradientSum, perExampleGradientNorms } from '../../lib/privacy/inspect.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { type MakePrivateOptions, PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { PoissonSampler, ShuffleSampler } from '../../lib/privacy/sampling.js'
import { type FeatureExample, FeatureModel, featureBatch, featureSize } from '../support/feature-model.js'
import { batchOf, type Example, examples, tinyModel } from '../support/models.js'
import { privateSum } from '../support/private-step.js'
import { TokenModel } from '../support/token-model.js'
import { difference, flat, norm, readWeights, uniforms } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const model = tinyModel(device)
const loss = model.loss.bind(model)
const units = examples([5, 1, 17, 3, 40, 9])

function options(overrides: Partial<MakePrivateOptions> = {}): MakePrivateOptions {
  const module = overrides.module ?? tinyModel(device)
  return {
    module,
    optimizer: sgd(module.parameters(), { learningRate: 1 }),
    data: { length: 100 },
    noiseMultiplier: 1,
    maxGradNorm: 1,
    expectedBatchSize: 10,
    steps: 10,
    ...overrides,
  }
}

t.test('bug class 1: the divisor is a stated constant, whatever the number of units', async (t) => {
  const updates: Float64Array[] = []
  for (const length of [2, 3, 100]) {
    const made = options({ data: { length }, sampleRate: 0.5, expectedBatchSize: 1.3 })
    const training = new PrivacyEngine({ seed: 1 }).makePrivate(made)
    t.equal(training.expectedBatchSize, 1.3, 'neither rounded nor derived')
    const before = await readWeights(made.module)
    await training.step(0, [() => batchOf(device, units)], (made.module as typeof model).loss.bind(made.module))
    updates.push(flat(difference(before, await readWeights(made.module))))
  }
  t.strictSame(updates[1], updates[0], 'N = 2 and N = 3 give the same bits')
  t.strictSame(updates[2], updates[0], 'so does N = 100')
  const engine = new PrivacyEngine({ relation: 'add-or-remove-one' })
  for (const missing of [{}, { sampleRate: 0.1, steps: undefined }, { sampleRate: 0.1, epochs: 3 }]) {
    t.throws(() => engine.makePrivate(options(missing)), { code: 'INVALID_ARGUMENT', message: /N is private/ })
  }
  t.equal(engine.makePrivate(options({ sampleRate: 0.1 })).sampleRate, 0.1)
})

t.test('bug class 2: the update is not divided by the size of the batch', async (t) => {
  const one = await privateSum(model, loss, [() => batchOf(device, units.slice(0, 1))], { expectedBatchSize: 4 })
  const twin = { ...units[0]!, unit: 60 }
  const two = await privateSum(model, loss, [() => batchOf(device, [units[0]!, twin])], { expectedBatchSize: 4 })
  const ratio = norm(two) / norm(one)
  t.ok(Math.abs(ratio - 2) < 1e-4, `twice the units, ${ratio} times the update`)
  const blanks = examples(new Array<number>(30).fill(0)).map((blank, i) => ({ ...blank, unit: 100 + i, label: -1 }))
  const padded = await privateSum(model, loss, [() => batchOf(device, [units[0]!, ...blanks])], {
    expectedBatchSize: 4,
  })
  t.ok(norm(difference(padded, one)) < 1e-6, 'units without rows change nothing')
})

t.test('bug class 3: shuffled batches are not accounted for as Poisson samples', (t) => {
  const sampler = new ShuffleSampler(100, 10, seedKey(1))
  t.throws(() => new PrivacyEngine().makePrivate(options({ sampler })), { code: 'NOT_PRIVATE', message: /shuffle/ })
  t.equal(new PrivacyEngine().makePrivate(options()).sampler.kind, 'poisson', 'the default is Poisson sampling')
  t.end()
})

t.test('bug class 5: an empty batch is a step like any other', async (t) => {
  const made = options({ sampleRate: 0.01 })
  const recorded: number[] = []
  const recorder = { appendStep: async (step: number) => void recorded.push(step) }
  const engine = new PrivacyEngine({ seed: 5, accountant: 'rdp' })
  const training = engine.makePrivate({ ...made, recorder })
  const before = await readWeights(made.module)
  const statistics = await training.step(0, [], loss)
  const moved = difference(await readWeights(made.module), before)
  t.ok(
    [...moved.values()].every((values) => values.some((value) => value !== 0)),
    'noise in every tensor',
  )
  t.same(recorded, [0], 'recorded')
  t.ok(engine.epsilon(1e-9) > 0, 'counted')
  t.match(statistics, { units: 0, rows: 0, loss: Number.NaN, nonFiniteUnits: 0 })
  const blank = examples([0, 0]).map((unit) => ({ ...unit, label: -1 }))
  await training.step(1, [() => batchOf(device, blank)], (made.module as typeof model).loss.bind(made.module))
  t.same(recorded, [0, 1], 'units without rows are no different')
})

t.test('bug class 6: accumulation sums, and no gradient outlives its step', async (t) => {
  const whole = await privateSum(model, loss, [() => batchOf(device, units)])
  const cut = await privateSum(
    model,
    loss,
    units.map((unit) => () => batchOf(device, [unit])),
  )
  t.ok(norm(difference(cut, whole)) < 1e-6, 'one unit at a time')
  t.same(flat(await privateSum(model, loss, [() => batchOf(device, units)])), flat(whole), 'nothing is left behind')

  await accumulateGradients(device, [() => batchOf(device, units)], loss, sumSink)
  t.same(
    flat(await privateSum(model, loss, [])),
    new Float64Array(flat(whole).length),
    'plain gradients do not leak in',
  )

  const made = tinyModel(device)
  let full = true
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(made.parameters(), { learningRate: 1 }),
    key: seedKey(6),
    noiseMultiplier: 0,
    maxGradNorm: 1,
    expectedBatchSize: 1,
    recorder: {
      appendStep: async () => {
        if (full) throw new Error('disk full')
      },
    },
  })
  const before = await readWeights(made)
  await t.rejects(optimizer.step(0, [() => batchOf(device, units)], made.loss.bind(made)), { message: 'disk full' })
  t.strictSame(flat(await readWeights(made)), flat(before), 'a step that cannot be recorded changes nothing')
  full = false
  const failing = (batch: ReturnType<typeof batchOf>, context: ForwardContext) => {
    if (batch.layout.units === 1) throw new Error('no more data')
    return made.loss(batch, context)
  }
  const parts = [() => batchOf(device, units), () => batchOf(device, [{ ...units[0]!, unit: 50 }])]
  await t.rejects(optimizer.step(1, parts, failing), { message: 'no more data' })
  await optimizer.step(2, [], made.loss.bind(made))
  t.strictSame(flat(await readWeights(made)), flat(before), 'nor do failed steps leave gradients to the next')
})

t.test('a failure that someone else waits for ends the step it fell into', async (t) => {
  using own = Device.open('cpu', { threads: 1 })
  const module = tinyModel(own)
  const optimizer = sgd(module.parameters(), { learningRate: 1 })
  const mechanism = { noiseMultiplier: 0, maxGradNorm: 1, expectedBatchSize: 1 }
  using privately = new PrivateOptimizer({ optimizer, key: seedKey(1), ...mechanism })
  const before = flat(await readWeights(module))
  const fail = (tensor = own.zeros([2])) => own.run('add', { a: tensor, y: tensor, size: 100, alpha: 1, beta: 0 })
  let heard = 0
  const listen = () =>
    own
      .zeros([1])
      .data()
      .catch(() => heard++)
  const overheard = privately.step(0, [() => batchOf(own, units)], (batch, context) => {
    const losses = module.loss(batch, context)
    fail()
    listen()
    return losses
  })
  await t.rejects(overheard, { code: 'ENGINE', message: /Step 0 made no update/ })
  // An empty batch has nothing to wait for: the gradient of step 0 would still be there.
  fail()
  const empty = privately.step(1, [], module.loss.bind(module))
  listen()
  await t.rejects(empty, { code: 'ENGINE' })
  t.equal(heard, 2)
  t.strictSame(flat(await readWeights(module)), before, 'no update was made')
  await privately.step(1, [() => batchOf(own, units)], module.loss.bind(module))
  t.notSame(flat(await readWeights(module)), before, 'it goes on')
})

t.test('bug class 11: a loss is the mean over its own unit’s rows', async (t) => {
  const head = new TokenModel(device, { tied: true, causal: true })
  const masked = (targetsOf: (unit: Example) => number[]) => (among: readonly Example[]) =>
    device.scope(() => {
      const batch = batchOf(device, among)
      const targets = device.tensor(Int32Array.from(among.flatMap(targetsOf)), [batch.layout.rows], 'int32')
      const tape = new Tape(device)
      const x = head.embedding.forward(batch.ids, { tape, training: false })
      const logits = linear(tape, x, head.embedding.weight)
      return meanPerUnit(tape, crossEntropy(tape, logits, targets.withLayout(batch.layout))).data()
    })
  const every = masked(({ ids }) => [...ids])
  const alone = await every([units[2]!])
  t.equal((await every([units[4]!, units[2]!, units[1]!]))[1], alone[0], 'whatever the other units')
  const others = masked((unit) => unit.ids.map((id) => (unit.unit === units[2]!.unit ? id : -1)))
  const beside = await others([units[4]!, units[2]!, units[1]!])
  t.same([...beside], [0, alone[0], 0], 'rows without a target have no loss and are no divisor of other units')
  const half = masked(({ ids }) => ids.map((id, row) => (row % 2 ? -1 : id)))
  t.equal((await half([units[2]!, units[0]!]))[0], (await half([units[2]!]))[0], 'nor of their own neighbours')
})

t.test('bug class 12: no setting of a mixture couples units', async (t) => {
  const coupled: BatchCoupled[] = [
    'batch-capacity',
    'batch-priority',
    'batch-expert-choice',
    'token-rounding',
    'batch-balance-loss',
    'load-bias',
  ]
  for (const setting of coupled) {
    const module = new TokenModel(device, { mixture: { batchCoupled: [setting] } })
    t.throws(
      () => new PrivacyEngine().makePrivate(options({ module })),
      { code: 'NOT_PRIVATE', message: new RegExp(setting) },
      setting,
    )
  }
  const crowded = new TokenModel(device, { mixture: { capacityPerSequence: 2, balanceLoss: 1, zLoss: 0.1 } })
  const sum = async (among: Example[]) =>
    clippedGradientSum(crowded, batchOf(device, among), crowded.loss, { maxGradNorm: 1e9 })
  const crowd = Array.from({ length: 40 }, (_, i) => ({ ...units[2]!, unit: i }))
  const one = flat64(await sum([units[2]!]))
  const all = flat64(await sum(crowd))
  const furthest = all.reduce((most, value, i) => Math.max(most, Math.abs(value / 40 - one[i]!)), 0)
  t.ok(furthest < 1e-5, `forty of the same text are forty times its gradient: ${furthest}`)
})

t.test('bug class 14: the sample of a step is the same before and after a resume', (t) => {
  const unbroken = new PoissonSampler(seedKey(14), 500, 0.1)
  const before = Array.from({ length: 20 }, (_, step) => unbroken.sample(step))
  const resumed = new PoissonSampler(seedKey(14), 500, 0.1)
  const after = Array.from({ length: 10 }, (_, i) => resumed.sample(10 + i))
  t.same(after, before.slice(10))
  t.equal(new Set(before.map((batch) => batch.join())).size, 20, 'no two steps have the same sample')
  t.end()
})

t.test('bug class 19: a unit that is not finite contributes nothing and changes nothing else', async (t) => {
  const features = new FeatureModel(device)
  const next = uniforms(19)
  const row = () => Array.from({ length: featureSize }, next)
  const healthy = [3, 1, 8].map((length, unit) => ({ unit, rows: Array.from({ length }, row), label: unit % 2 }))
  const without = flat(await privateSum(features, features.loss, [() => featureBatch(device, healthy)]))
  for (const value of [Number.NaN, Infinity, -Infinity]) {
    const broken: FeatureExample = { unit: 9, rows: [row(), row().with(1, value)], label: 1 }
    for (const batch of [
      [...healthy, broken],
      [broken, ...healthy],
    ]) {
      const sum = flat(await privateSum(features, features.loss, [() => featureBatch(device, batch)]))
      const furthest = sum.reduce((most, entry, i) => Math.max(most, Math.abs(entry - without[i]!)), 0)
      t.ok(furthest < 1e-6, `${value}: ${furthest}`)
    }
  }
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(features.parameters(), { learningRate: 0 }),
    key: seedKey(19),
    noiseMultiplier: 0,
    maxGradNorm: 1,
    expectedBatchSize: 1,
  })
  const broken: FeatureExample = { unit: 9, rows: [row().with(0, Number.NaN)], label: 0 }
  const statistics = await optimizer.step(0, [() => featureBatch(device, [broken, ...healthy])], features.loss)
  t.match(statistics, { units: 4, nonFiniteUnits: 1 })
  t.ok(Number.isFinite(statistics.loss) && Number.isFinite(statistics.meanGradNorm), 'the statistics stay finite')
})

t.test('bug class 23: a unit is in a batch once', async (t) => {
  const twice = [units[0]!, units[1]!, { ...units[2]!, unit: units[0]!.unit }]
  await t.rejects(privateSum(model, loss, [() => batchOf(device, twice)]), {
    code: 'INVALID_ARGUMENT',
    message: /unit 0/,
  })
  const across = [() => batchOf(device, units.slice(0, 3)), () => batchOf(device, units.slice(2))]
  await t.rejects(
    privateSum(model, loss, across),
    { code: 'INVALID_ARGUMENT', message: /unit 2/ },
    'across micro-batches',
  )
})

t.test('bug class 24: the unit is the example, not the micro-batch', async (t) => {
  const twin = { ...units[0]!, unit: 70 }
  const sum = await privateSum(model, loss, [() => batchOf(device, [units[0]!, twin])], { maxGradNorm: 0.01 })
  const size = norm(sum)
  t.ok(Math.abs(size / (2 * 0.01 * (1 - 2 ** -10)) - 1) < 1e-3, `each of two is clipped to 0.01: ${size}`)
  const norms = await perExampleGradientNorms(model, batchOf(device, units), loss)
  t.equal(norms.length, units.length, 'a norm for each')
})

function flat64(gradients: ReadonlyMap<string, Float32Array>): Float64Array {
  return Float64Array.from([...gradients.values()].flatMap((values) => [...values]))
}
