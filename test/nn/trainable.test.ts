import t from 'tap'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { LowRankAdapter } from '../../lib/nn/low-rank-adapter.js'
import { MixtureOfExperts } from '../../lib/nn/mixture-of-experts.js'
import { type AdapterTarget, mergeAdapters, setTrainable, type TrainableChoice } from '../../lib/nn/trainable.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { checkLayer } from '../support/gradients.js'
import { batchOf, examples, tinyModel } from '../support/models.js'
import { affine } from '../support/reference-layers.js'
import { squaredNormsByParameter, stepRandom, writtenSquaredNorms } from '../support/sites.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const HEAD = /^head\./
const units = examples([5, 9, 1, 17])

t.test('a layer with an adapter', async (t) => {
  const init = new Initializer(device, 1)
  const module = new Linear(init, { inputSize: 7, outputSize: 5 })
  const adapter = module.adapt(init, { rank: 3, alpha: 6 })
  perturb(device, module, 0.3)
  await checkLayer(t, 'W + 2 B A', {
    device,
    module,
    inputSize: 7,
    forward: (x, context) => ({ y: module.forward(x, context, { activation: 'relu' }) }),
    reference: (x, get) => ({
      y: x.map((row) => {
        const change = affine(affine(row, get('adapter.a')), get('adapter.b'))
        return affine(row, get('weight'), get('bias')).map((value, i) => Math.max(0, value + 2 * change[i]!))
      }),
    }),
  })
  t.same(
    module.trainableParameters().map((parameter) => parameter.shape),
    [[5], [3, 7], [5, 3]],
  )
  t.equal(module.adapter, adapter)
})

t.test('which parameters train', async (t) => {
  const names = (choice: TrainableChoice, targets?: readonly AdapterTarget[], layers?: readonly number[]) => {
    const model = tinyModel(device)
    setTrainable(model, choice, new Initializer(device, 3), { head: HEAD, rank: 2, targets, layers })
    return [...model.namedParameters()].filter(([, parameter]) => parameter.trainable).map(([name]) => name)
  }
  t.ok(names('all').length > 30)
  t.same(names('head'), ['head.weight', 'head.bias'])
  const biases = names('bias')
  t.ok(biases.includes('layers.0.attention.query.bias') && biases.includes('head.weight'))
  t.ok(biases.every((name) => /bias$/i.test(name) || name === 'head.weight'))
  const adapted = names('lora')
  t.ok(adapted.includes('layers.1.attention.value.adapter.b'))
  t.ok(adapted.includes('layers.1.feedForward.adapters.up.a'))
  t.ok(adapted.every((name) => /\.adapters?\.(\w+\.)?[ab]$/.test(name) || HEAD.test(name)))
  t.notOk(
    adapted.some((name) => /router/.test(name)),
    'the router is off',
  )
  for (const [target, inside] of [
    ['attention', /\.attention\.(query|key|value|output)\.adapter\./],
    ['experts', /\.feedForward\.((up|down)\.adapter|adapters\.(up|down))\./],
    ['router', /\.router\.adapter\./],
  ] as const) {
    const some = names('lora', [target]).filter((name) => !HEAD.test(name))
    t.ok(some.length > 0 && some.every((name) => inside.test(name)), target)
  }
  t.same(names('lora', ['experts', 'attention']), adapted, 'the default')
  for (const targets of [[], ['everything' as 'router'], ['attention', 'router', 'heads' as 'router']] as const) {
    t.throws(() => names('lora', targets), { code: 'INVALID_ARGUMENT' }, targets.join())
  }
  const layerNumbers = (targets: readonly AdapterTarget[] | undefined, layers: readonly number[]) => [
    ...new Set(
      names('lora', targets, layers)
        .filter((name) => !HEAD.test(name))
        .map((name) => name.split('.')[1]),
    ),
  ]
  t.same(layerNumbers(undefined, [1]), ['1'])
  t.same(names('lora', undefined, [1, 0]), adapted, 'all of them')
  t.same(layerNumbers(['router', 'attention'], [0, 1]), ['0', '1'], 'the router is in one of them')
  for (const layers of [[], [2], [-1], [0.5], [1, 2]]) {
    t.throws(() => names('lora', undefined, layers), { code: 'INVALID_ARGUMENT' }, layers.join())
  }
  for (const [layers, got] of [
    [1, '1'],
    [[1, 0, 1], '[1,0,1]'],
    [[undefined, 1], '["undefined",1]'],
    [[Number.NaN], '["NaN"]'],
    [[Number.POSITIVE_INFINITY], '["Infinity"]'],
    // biome-ignore lint/suspicious/noSparseArray: what a slip can make
    [[, 1], '["undefined",1]'],
    [['1'], '["1"]'],
    [{ 0: 1, length: 1 }, '{"0":1,"length":1}'],
  ]) {
    const message = `layers: expected a list of numbers of layers, each once, got ${got} (--lora-layers)`
    t.throws(() => names('lora', undefined, layers as never), { code: 'INVALID_ARGUMENT', message })
  }
  for (const targets of ['router', [undefined, 'attention'], ['attention', 'attention'], [null]]) {
    const message = /^targets: expected a list of attention, experts, router, each once, got .* \(--lora-targets\)$/
    t.throws(() => names('lora', targets as never), { code: 'INVALID_ARGUMENT', message }, String(targets))
  }
  t.throws(() => names('lora', ['router'], [0, 1]), /layers: expected .* with router, of which the last is 1, got 0/)
  t.throws(() => names('lora', ['attention', 'router'], [0]), /There is no router in layers 0/)
  t.throws(() => names('lora', ['router'], []), /layers: expected .*got none/)
  const dense = tinyModel(device, { sparseEvery: 9 })
  for (const layers of [undefined, [0]]) {
    t.throws(() => setTrainable(dense, 'lora', new Initializer(device), { targets: ['router'], layers }), /no router/)
  }
  for (const [config, got] of [
    [{}, 'rank, got 8'],
    [{ rank: 9 }, 'rank, got 9'],
    [{ rank: 0 }, 'rank, got 0'],
    [{ rank: 1.5 }, 'rank, got 1.5'],
    [{ rank: Number.NaN }, 'rank, got NaN'],
    [{ rank: 2, alpha: Number.NaN }, 'alpha, got NaN'],
  ] as const) {
    const router = tinyModel(device)
    const message = got.startsWith('rank')
      ? `Expected an integer from 1 to 4 (router of layer 1 is 4 x 12; --lora-rank, default 8) for ${got}`
      : /for alpha, got NaN/
    t.throws(() => setTrainable(router, 'lora', new Initializer(device), { targets: ['router'], ...config }), {
      message,
    })
    t.equal(router.trainableParameters().length, router.parameters().length, 'nothing is frozen')
  }
  t.same(dense.trainableParameters().length, [...dense.namedParameters()].length, 'what is refused freezes nothing')
  t.throws(() => setTrainable(tinyModel(device), 'head', new Initializer(device)), { code: 'INVALID_ARGUMENT' })
  for (const rank of [0, 1.5, 13]) {
    t.throws(() => new LowRankAdapter(new Initializer(device), [12, 20], { rank }), /rank/)
  }
  t.throws(() => new LowRankAdapter(new Initializer(device), [12, 20], { alpha: Number.NaN }), /alpha/)
})

t.test('below the lowest layer with adapters nothing is computed backwards', (t) => {
  for (const [layers, expected] of [
    [[1], [false, true]],
    [undefined, [true, true]],
  ] as const) {
    const model = tinyModel(device)
    setTrainable(model, 'lora', new Initializer(device, 3), { head: HEAD, rank: 2, layers })
    const context = { tape: new Tape(device, new SumSink()), training: true }
    device.scope(() => {
      const batch = batchOf(device, units)
      let x = model.embedding.forward(batch.ids, context)
      const tracked = model.layers.map((layer) => {
        x = layer.forward(x, context).y
        return context.tape.tracks(x)
      })
      t.same(tracked, expected, `adapters in ${layers ?? 'every layer'}`)
    })
  }
  t.end()
})

async function logits(model: ReturnType<typeof tinyModel>): Promise<Float32Array> {
  return device.scope(() =>
    model.logits(batchOf(device, units), { tape: new Tape(device), training: false }).data(),
  ) as Promise<Float32Array>
}

const largestDifference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)

t.test('adapters start as nothing, train privately, and merge', async (t) => {
  const model = tinyModel(device)
  const before = await logits(model)
  setTrainable(model, 'lora', new Initializer(device, 3), { head: /^none/, rank: 3 })
  t.ok(largestDifference(await logits(model), before) < 1e-6, 'B is zero')
  const frozen = [...model.namedParameters()].filter(([, parameter]) => !parameter.trainable)
  const contents = await Promise.all(frozen.map(([, parameter]) => parameter.tensor.data()))

  const optimizer = sgd(model.trainableParameters(), { learningRate: 1 })
  const options = { optimizer, key: seedKey(1), noiseMultiplier: 0.1, maxGradNorm: 1, expectedBatchSize: 4 }
  using training = new PrivateOptimizer(options)
  for (let step = 0; step < 3; step++) await training.step(step, [() => batchOf(device, units)], model.loss.bind(model))
  const after = await logits(model)
  t.ok(largestDifference(after, before) > 1e-3)
  for (const [i, [name, parameter]] of frozen.entries()) t.same(await parameter.tensor.data(), contents[i], name)

  const parameters = model.parameters().length
  mergeAdapters(model)
  t.ok(largestDifference(await logits(model), after) < 1e-5, 'the same outputs from plain weights')
  t.ok(model.parameters().length < parameters)
  t.notOk([...model.namedParameters().keys()].some((name) => name.includes('adapter')))
  mergeAdapters(model)
})

t.test("a unit's norm is that of its gradient with respect to what trains", async (t) => {
  const model = tinyModel(device)
  setTrainable(model, 'lora', new Initializer(device, 3), {
    head: HEAD,
    rank: 4,
    targets: ['attention', 'experts', 'router'],
  })
  perturb(device, model, 0.1)
  const loss = model.loss.bind(model)
  const subject = {
    device,
    module: model,
    loss,
    batch: (some: readonly (typeof units)[number][]) => batchOf(device, some),
  }
  const norms = await squaredNormsByParameter(subject, units, stepRandom(device))
  t.same(
    [...norms.keys()].sort(),
    model
      .trainableParameters()
      .map(({ name }) => name)
      .sort(),
  )
  const written = await writtenSquaredNorms(subject, units, stepRandom(device))
  for (const parameter of model.trainableParameters()) {
    for (const index of units.keys()) {
      const expected = written.get(parameter.name)![index]!
      const got = norms.get(parameter.name)![index]!
      t.ok(Math.abs(got - expected) <= 3e-3 * expected + 1e-9, `${parameter.name} of unit ${index}`)
    }
  }
})

t.test('gated experts with adapters compute what they compute merged', async (t) => {
  const init = new Initializer(device, 2)
  const config = { hiddenSize: 12, intermediateSize: 20, numExperts: 4, expertsPerToken: 2, gated: true }
  const module = new MixtureOfExperts(init, { ...config, capacityPerSequence: 3 })
  const layout = new UnitLayout(device, Int32Array.of(0, 7, 7, 9), Int32Array.of(0, 1, 2))
  const x = init.normal([9, 12], 1).tensor.withLayout(layout)
  const output = () =>
    device.scope(() => module.forward(x, { tape: new Tape(device), training: false }).y.data()) as Promise<Float32Array>
  const before = await output()
  module.adapt(init, { rank: 3 })
  t.ok(largestDifference(await output(), before) < 1e-5)
  perturb(device, module, 0.2)
  const adapted = await output()
  t.ok(largestDifference(adapted, before) > 0.1)
  module.mergeAdapter()
  t.ok(largestDifference(await output(), adapted) < 1e-4)
})
