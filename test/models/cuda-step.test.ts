// A whole private step of both classifiers on an emulated CUDA device: the CPU's, but for rounding.
import t, { type Test } from 'tap'
import { Parameter } from '../../lib/autograd/parameter.js'
import { roundToBfloat16, widenBfloat16 } from '../../lib/engine/bfloat16.js'
import { Device, type Precision } from '../../lib/engine/device.js'
import { MixtureClassifier } from '../../lib/models/mixture-classifier.js'
import type { TextClassifier } from '../../lib/models/text-classifier.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { sgd } from '../../lib/optim/sgd.js'
import { perExampleGradientNorms } from '../../lib/privacy/inspect.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'
import { batchOf, type Example, examples, tinyConfig, tinyModel } from '../support/models.js'
import { difference, norm, readWeights, type Weights, writeWeights } from '../support/weights.js'

const emulated = new EmulatedCuda()
t.teardown(() => emulated.remove())
t.setTimeout(280_000)

const models: Record<string, (device: Device) => TextClassifier> = {
  'switch classifier': (device) => tinyModel(device, { hiddenSize: 32, numAttentionHeads: 2, dropout: 0.1 }),
  'mixture classifier': (device) =>
    new MixtureClassifier(new Initializer(device, 3), {
      vocabularySize: tinyConfig.vocabularySize,
      numLabels: tinyConfig.numLabels,
      hiddenSize: 16,
      numExperts: 4,
    }),
}
const units = examples([7, 1, 12, 4])

function openCuda(precision: Precision, faults = ''): Device {
  emulated.use(faults)
  return Device.open('cuda', { precision })
}

/** The norms of all units, and what two private steps make of the weights. */
interface Outcome {
  readonly norms: Float64Array
  readonly before: Weights
  readonly after: Weights
  readonly loss: number
}

async function norms(model: TextClassifier, device: Device, batch: readonly Example[]): Promise<Float64Array> {
  return perExampleGradientNorms(model, batchOf(device, batch), (b, context) => model.loss(b, context))
}

async function train(model: TextClassifier, device: Device, steps = 2): Promise<number> {
  const key = seedKey('cuda step')
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(model.parameters(), { learningRate: 0.2, momentum: 0.9 }),
    key,
    noiseMultiplier: 0.7,
    maxGradNorm: 0.5,
    expectedBatchSize: 4,
  })
  let loss = Number.NaN
  for (let step = 0; step < steps; step++) {
    // Two micro-batches, so that weights are used again before they change.
    const parts = [units.slice(0, 2), units.slice(2)].map((part) => () => batchOf(device, part))
    loss = (await optimizer.step(step, parts, (batch, context) => model.loss(batch, context))).loss
  }
  return loss
}

async function outcome(name: string, device: Device, weights?: Weights): Promise<Outcome> {
  using model = models[name]!(device)
  const before = weights ?? exactInBfloat16(await readWeights(model))
  writeWeights(model, before)
  const unitNorms = await norms(model, device, units)
  const loss = await train(model, device)
  return { norms: unitNorms, before, after: await readWeights(model), loss }
}

/** Weights that bfloat16 holds as they are, so that what is compared is the rounding of activations. */
function exactInBfloat16(weights: Weights): Weights {
  const round = (values: Float64Array) => Float64Array.from(widenBfloat16(roundToBfloat16(Float32Array.from(values))))
  return new Map([...weights].map(([name, values]) => [name, round(values)]))
}

/** The largest relative error of a norm. */
function errorOfNorms(actual: Float64Array, expected: Float64Array): number {
  return Math.max(...expected.map((value, i) => Math.abs(actual[i]! - value) / value))
}

/** How far the weights have come from where they should, relative to how far they moved. */
function errorOfSteps(actual: Outcome, expected: Outcome): number {
  return norm(difference(actual.after, expected.after)) / norm(difference(expected.after, expected.before))
}

// Rounding may carry a relu's argument across zero, and then a gradient is another one; at these texts none is carried.
const tolerances: Record<Precision, { norms: number; steps: number }> = {
  float32: { norms: 1e-5, steps: 1e-5 },
  bfloat16: { norms: 1e-2, steps: 1e-2 },
}

async function compare(t: Test, name: string, precision: Precision, expected: Outcome): Promise<void> {
  using device = openCuda(precision)
  const actual = await outcome(name, device, expected.before)
  const wrong = { norms: errorOfNorms(actual.norms, expected.norms), steps: errorOfSteps(actual, expected) }
  t.ok(wrong.norms <= tolerances[precision].norms, `${precision}: norms are off by ${wrong.norms}`)
  t.ok(wrong.steps <= tolerances[precision].steps, `${precision}: the steps are off by ${wrong.steps}`)
  t.ok(Math.abs(actual.loss - expected.loss) <= tolerances[precision].norms * expected.loss, `loss ${actual.loss}`)
}

for (const name of Object.keys(models)) {
  t.test(`${name}: norms and private steps are the CPU's`, async (t) => {
    using cpu = Device.open('cpu', { threads: 1 })
    const expected = await outcome(name, cpu)
    await compare(t, name, 'float32', expected)
    await compare(t, name, 'bfloat16', expected)
  })

  t.test(`${name}: the norm of a unit does not depend on the others`, async (t) => {
    const others = examples([2, 20, 5], tinyConfig, 99).map((unit) => ({
      ...unit,
      unit: unit.unit + 50,
    }))
    const own = units[2]!
    for (const precision of ['float32', 'bfloat16'] as const) {
      using device = openCuda(precision)
      using model = models[name]!(device)
      const [alone] = await norms(model, device, [own])
      for (const place of [0, 3]) {
        const batch = [...others.slice(0, place), own, ...others.slice(place)]
        t.equal((await norms(model, device, batch))[place], alone, `${precision}, at place ${place}`)
      }
    }
  })
}

t.test('weights in bfloat16 follow the weights', async (t) => {
  using device = openCuda('bfloat16')
  using model = models['switch classifier']!(device)
  const first = await norms(model, device, units)
  const weights = await readWeights(model)
  writeWeights(model, new Map([...weights].map(([name, values]) => [name, values.map((value) => value * 1.5)])))
  t.notSame(await norms(model, device, units), first)
  writeWeights(model, weights)
  t.same(await norms(model, device, units), first)
})

t.test('the copy of weights that an op could not make is made again', async (t) => {
  using device = openCuda('bfloat16', 'launch-refused=1')
  using parameter = new Parameter(device.tensor([1.5, -2]))
  await t.rejects(parameter.as('bfloat16').data(), { code: 'ENGINE' })
  t.same([...(await parameter.as('bfloat16').data())], [1.5, -2])
  t.equal(parameter.as('bfloat16'), parameter.as('bfloat16'), 'one copy')
  t.equal(parameter.as('float32'), parameter.tensor)
})

t.test('a step whose launch fails says so, and another device goes on', async (t) => {
  {
    using device = openCuda('bfloat16', 'launch-refused=300')
    using model = models['switch classifier']!(device)
    await t.rejects(train(model, device), { name: 'DpMoeError', code: 'ENGINE', message: /launching \w+ with/ })
    await train(model, device, 1)
    t.ok(Number.isFinite((await norms(model, device, units))[0]), 'the device goes on')
  }
  {
    using device = openCuda('bfloat16', 'launch-fails=300')
    using model = models['switch classifier']!(device)
    await t.rejects(train(model, device), { name: 'DpMoeError', code: 'DEVICE_LOST' })
  }
  using device = openCuda('bfloat16')
  using model = models['switch classifier']!(device)
  t.ok(Number.isFinite(await train(model, device, 1)), 'another device trains')
})
