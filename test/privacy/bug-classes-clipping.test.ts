// The bug classes of DP libraries that concern norms and clipping, by the numbers of docs/privacy-tests.md.
import t from 'tap'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { Device } from '../../lib/engine/device.js'
import { sgd } from '../../lib/optim/sgd.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { clippedGradientSum, perExampleGradientNorms } from '../../lib/privacy/inspect.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { FeatureModel, featureBatch, featureSize } from '../support/feature-model.js'
import { batchOf, examples, gradientSum, tinyModel } from '../support/models.js'
import { privateSum } from '../support/private-step.js'
import { plainGradients, type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { TokenModel } from '../support/token-model.js'
import { difference, flat, norm, readWeights, uniforms, type Weights } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const model = tinyModel(device)
const loss = model.loss.bind(model)
const units = examples([5, 1, 17, 3, 40, 9])

/** Factors aim this far below the bound, so that rounding stays within it. */
const margin = 1 - 2 ** -10

t.test('bug class 7: the norm of a bias over many rows is that of the sum of its rows', async (t) => {
  const subject: Subject<(typeof units)[0], ReturnType<typeof batchOf>> = {
    device,
    module: model,
    loss,
    batch: (among) => batchOf(device, among),
  }
  const random = stepRandom(device)
  const norms = await squaredNormsByParameter(subject, units, random)
  const whole = await perExampleGradientNorms(model, batchOf(device, units), loss)
  const biases = [...norms.keys()].filter((name) => /bias/i.test(name))
  t.ok(biases.length > 12, `${biases.length} biases`)
  for (const [index, unit] of units.entries()) {
    const alone = await plainGradients(subject, [unit], random)
    for (const name of biases) {
      const truth = alone.get(name)!.reduce((sum, value) => sum + value ** 2, 0)
      const found = norms.get(name)![index]!
      const close = Math.abs(found - truth) <= 1e-5 * truth + 1e-12 * whole[index]! ** 2
      if (!close) t.fail(`${name} of unit ${index}: ${found} for ${truth}`)
    }
    const total = [...norms.values()].reduce((sum, values) => sum + values[index]!, 0)
    t.ok(Math.abs(Math.sqrt(total) / whole[index]! - 1) < 1e-9, `unit ${index}: the whole is the root of the sum`)
  }
})

t.test('bug class 8: the clipping norm that is asked for is the one in use', async (t) => {
  for (const clipping of ['flat', 'per-layer', 'automatic'] as const) {
    for (const maxGradNorm of [1e-3, 0.1, 1]) {
      for (const unit of units) {
        const sum = await clippedGradientSum(model, batchOf(device, [unit]), loss, { maxGradNorm, clipping })
        const size = norm(wide(sum))
        if (!(size <= maxGradNorm)) t.fail(`${clipping}, C ${maxGradNorm}, unit ${unit.unit}: ${size}`)
      }
    }
  }
  for (const maxGradNorm of [1e-3, 0.05]) {
    const made = tinyModel(device)
    const training = new PrivacyEngine({ seed: 8 }).makePrivate({
      module: made,
      optimizer: sgd(made.parameters(), { learningRate: 1 }),
      data: { length: 1000 },
      noiseMultiplier: 1e-4,
      maxGradNorm,
      expectedBatchSize: 1,
      steps: 10,
    })
    const before = await readWeights(made)
    const { clippedFraction } = await training.step(0, [() => batchOf(device, [units[4]!])], made.loss.bind(made))
    const size = norm(difference(await readWeights(made), before))
    t.equal(clippedFraction, 1)
    t.ok(Math.abs(size / (maxGradNorm * margin) - 1) < 0.02, `through the engine: C ${maxGradNorm}, update ${size}`)
    t.equal(training.optimizer.noiseDeviation, 1e-4 * maxGradNorm)
  }
  const free = await clippedGradientSum(model, batchOf(device, units), loss, { maxGradNorm: 1e6 })
  const plain = await gradientSum(device, model, units)
  t.ok(norm(difference(wide(free), plain)) < 1e-5 * norm(plain), 'a bound out of reach changes nothing')
})

t.test('bug class 8: groups of layers share one bound', (t) => {
  const { groups } = clippingGroups('per-layer', 2, model.parameters())
  const squares = groups.reduce((sum, { bound }) => sum + bound ** 2, 0)
  t.ok(Math.abs(squares - 4) < 1e-12, `squares of the bounds sum to ${squares}`)
  const members = groups.flatMap(({ parameters }) => parameters)
  t.same(new Set(members), new Set(model.parameters()), 'every parameter is in a group')
  t.equal(members.length, model.parameters().length, 'and in one only')
  t.ok(groups.length > 3, groups.map(({ name }) => name).join())
  for (const wrong of [0, -1, Number.NaN, Infinity]) t.throws(() => clippingGroups('flat', wrong, model.parameters()))
  t.end()
})

t.test('bug class 9: noise and bound keep their scale, whatever the batch and the clipping', async (t) => {
  const key = seedKey(9)
  const noise = async (maxGradNorm: number, noiseMultiplier: number, expectedBatchSize = 1) =>
    flat(await privateSum(model, loss, [], { key, maxGradNorm, noiseMultiplier, expectedBatchSize }))
  const once = await noise(1, 1)
  for (const [what, other, factor] of [
    ['C doubled', await noise(2, 1), 2],
    ['sigma doubled', await noise(1, 2), 2],
    ['C doubled, sigma halved', await noise(2, 0.5), 1],
    ['another divisor', await noise(1, 1, 8), 1],
  ] as const) {
    const furthest = other.reduce((most, value, i) => Math.max(most, Math.abs(value - factor * once[i]!)), 0)
    t.ok(furthest < 1e-5, `${what}: ${furthest}`)
  }
  const small = await privateSum(model, loss, [() => batchOf(device, units)], { maxGradNorm: 0.001 })
  const large = await privateSum(model, loss, [() => batchOf(device, units)], { maxGradNorm: 0.002 })
  t.ok(Math.abs(norm(large) / norm(small) - 2) < 1e-3, 'clipped gradients grow with C, not with its square')
})

t.test('bug class 10: a tied table has one gradient, one norm, one noise', async (t) => {
  const tied = new TokenModel(device, { tied: true, causal: true })
  t.equal(tied.parameters().length, new Set(tied.parameters()).size)
  const names = [...tied.namedParameters().keys()].filter((name) => /head/.test(name))
  t.same(names, [], 'the head has no table of its own')
  const clipped = await clippedGradientSum(tied, batchOf(device, [units[4]!]), tied.loss, { maxGradNorm: 0.01 })
  const size = norm(wide(clipped))
  t.ok(size <= 0.01 && size > 0.01 * (1 - 3e-3), `the norm of the sum is clipped to the bound: ${size}`)
  const twice = sgd([...tied.parameters(), ...tied.parameters()], { learningRate: 1 })
  t.equal(twice.parameters.length, tied.parameters().length, 'a parameter listed twice is updated once')
})

t.test('bug class 10: uses of a tied table that nearly cancel keep the bound', async (t) => {
  const [size, vocabulary] = [64, 8]
  const layout = new UnitLayout(device, Int32Array.of(0, 1), Int32Array.of(0))
  const next = uniforms(10)
  let largest = 0
  for (let trial = 0; trial < 200; trial++) {
    const [scale, apart] = [10 ** (8 * next()), 10 ** (-7 * next())]
    const embedded = Float32Array.from({ length: size }, () => scale * (next() - 0.5))
    const x = embedded.map((value) => value * (1 + apart * next()))
    const table = new Parameter(device.zeros([vocabulary, size]))
    const clipping = clippingGroups('flat', 1, [table])
    const gradient = device.scope(() => {
      const sink = new ClippedSumSink(device, clipping, 1, device.zeros([1, 3], { dtype: 'float64' }))
      const { segments } = layout
      const ids = device.tensor([3], [1], 'int32')
      sink.add({ kind: 'embedding', parameter: table, dy: device.tensor(embedded, [1, size]), ids, segments })
      const dy = device.tensor(new Float32Array(vocabulary).with(3, -1), [1, vocabulary])
      sink.add({ kind: 'linear', parameter: table, dy, x: device.tensor(x, [1, size]), segments })
      sink.finish()
      return table.gradient.data()
    })
    const moved = Math.sqrt(((await gradient) as Float32Array).reduce((sum, value) => sum + value ** 2, 0))
    largest = Math.max(largest, moved)
  }
  t.ok(largest <= 1 && largest > 0.99, `at most ${largest}`)
})

t.test('bug class 10: parameters may be frozen and trained again between steps', async (t) => {
  const made = tinyModel(device)
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(made.parameters(), { learningRate: 1 }),
    key: seedKey(10),
    noiseMultiplier: 0,
    maxGradNorm: 0.01,
    expectedBatchSize: 1,
  })
  let step = 0
  const moved = async () => {
    const before = await readWeights(made)
    await optimizer.step(step++, [() => batchOf(device, [units[4]!])], made.loss.bind(made))
    return difference(await readWeights(made), before)
  }
  const bounded = (update: Weights, what: string) =>
    t.ok(Math.abs(norm(update) / (0.01 * margin) - 1) < 2e-3, `${what}: one unit moves the trained ones by C`)
  const table: Parameter = made.embedding.weight
  const still = (update: Weights) => update.get(table.name)!.every((value) => value === 0)

  table.freeze()
  const frozen = await moved()
  t.ok(still(frozen), 'frozen before the first step')
  bounded(frozen, 'frozen')
  table.trainable = true
  const thawed = await moved()
  t.notOk(still(thawed), 'trained again')
  bounded(thawed, 'trained again')
  table.freeze()
  const again = await moved()
  t.ok(still(again), 'frozen again')
  bounded(again, 'frozen again')
  made.freeze()
  await t.rejects(moved(), { code: 'INVALID_ARGUMENT', message: /trainable/ }, 'nothing to train')
})

t.test('bug class 18: sizes at the ends of float32 keep their bound', async (t) => {
  const features = new FeatureModel(device)
  const next = uniforms(18)
  for (const scale of [1e-20, 1e-6, 1, 1e6, 1e12, 1e18, 1e25]) {
    const rows = Array.from({ length: 7 }, () => Array.from({ length: featureSize }, () => scale * (next() - 0.5)))
    for (const maxGradNorm of [1e-6, 1, 1e6]) {
      const sum = await clippedGradientSum(
        features,
        featureBatch(device, [{ unit: 0, rows, label: 1 }]),
        features.loss,
        {
          maxGradNorm,
        },
      )
      const size = norm(wide(sum))
      if (!(size <= maxGradNorm)) t.fail(`features of ${scale}, C ${maxGradNorm}: ${size}`)
    }
    t.pass(`features of ${scale}`)
  }
  const many = Array.from({ length: 3000 }, (_, unit) => ({ ...units[3]!, unit }))
  const sum = await clippedGradientSum(model, batchOf(device, many), loss, { maxGradNorm: 1 })
  const one = await clippedGradientSum(model, batchOf(device, [units[3]!]), loss, { maxGradNorm: 1 })
  const scaled = new Map([...wide(one)].map(([name, values]) => [name, values.map((value) => 3000 * value)]))
  const off = norm(difference(wide(sum), scaled)) / norm(scaled)
  t.ok(off < 1e-5, `a sum of 3000 units is off by ${off}`)
})

function wide(gradients: ReadonlyMap<string, Float32Array>): Map<string, Float64Array> {
  return new Map([...gradients].map(([name, values]) => [name, Float64Array.from(values)]))
}
