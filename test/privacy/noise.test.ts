import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { sgd } from '../../lib/optim/sgd.js'
import type { ClippingMode } from '../../lib/privacy/clipping.js'
import { osKey, type RunKey, seedKey } from '../../lib/privacy/keys.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { batchOf, type Example, examples, tinyModel } from '../support/models.js'
import { correlationInDeviations, kolmogorov, varianceInDeviations } from '../support/statistics.js'
import { difference, flat, readWeights, type Weights } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const noiseMultiplier = 2
const maxGradNorm = 3
const expectedBatchSize = 4

/** update * expectedBatchSize / (sigma C): standard normals, if the update is noise alone. */
function standardized(before: Weights, after: Weights): Map<string, Float64Array> {
  const unit = expectedBatchSize / (noiseMultiplier * maxGradNorm)
  return new Map([...difference(before, after)].map(([name, values]) => [name, values.map((value) => value * unit)]))
}

interface OneStep {
  key: RunKey
  step?: number
  units?: readonly (readonly Example[])[]
  noise?: number
  clipping?: ClippingMode
}

/** What one step of plain SGD at learning rate 1 does to a fresh model, in units of the noise. */
async function oneStep({ key, step = 3, units = [], noise = noiseMultiplier, clipping }: OneStep) {
  const model = tinyModel(device)
  const before = await readWeights(model)
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(model.parameters(), { learningRate: 1 }),
    key,
    noiseMultiplier: noise,
    maxGradNorm,
    clipping,
    expectedBatchSize,
  })
  const parts = units.map((part) => () => batchOf(device, part))
  await optimizer.step(step, parts, model.loss.bind(model))
  const after = await readWeights(model)
  model[Symbol.dispose]()
  return standardized(before, after)
}

t.test('the update of an empty batch is N(0, (sigma C / expectedBatchSize)^2) in every tensor', async (t) => {
  const model = tinyModel(device)
  const engine = new PrivacyEngine({ seed: 11 })
  const training = engine.makePrivate({
    module: model,
    optimizer: sgd(model.parameters(), { learningRate: 1 }),
    data: { length: 1000 },
    noiseMultiplier,
    maxGradNorm,
    expectedBatchSize,
    sampleRate: 1e-9,
    steps: 60,
  })
  const steps: Map<string, Float64Array>[] = []
  let before = await readWeights(model)
  for (let step = 0; step < training.steps; step++) {
    if (training.sampler.sample(step).length > 0) t.fail('a batch that is not empty')
    const statistics = await training.step(step, [], model.loss.bind(model))
    if (statistics.units !== 0) t.fail('units in an empty batch')
    const after = await readWeights(model)
    steps.push(standardized(before, after))
    before = after
  }
  t.ok(engine.epsilon(1e-12) > 0, 'empty batches count')
  for (const name of before.keys()) {
    const sample = Float64Array.from(steps.flatMap((noise) => [...noise.get(name)!]))
    const statistic = kolmogorov(sample)
    const variance = varianceInDeviations(sample)
    t.ok(statistic < 2.2, `${name}: Kolmogorov ${statistic} of ${sample.length}`)
    t.ok(Math.abs(variance) < 5, `${name}: variance off by ${variance} deviations`)
  }
  const rows = steps.map(flat)
  const correlations = rows.flatMap((row, step) =>
    [1, 2, 3, 16].filter((lag) => step >= lag).map((lag) => Math.abs(correlationInDeviations(row, rows[step - lag]!))),
  )
  t.ok(Math.max(...correlations) < 5, `steps are independent: ${Math.max(...correlations)} deviations`)
  const names = [...before.keys()]
  for (const noise of steps.slice(0, 3)) {
    const distinct = new Set(flat(noise))
    t.ok(distinct.size > 0.999 * flat(noise).length, `no noise is used twice in ${names.length} tensors`)
  }
})

t.test('one noise per step, whatever the batch and its micro-batches', async (t) => {
  const key = seedKey(12)
  const units = examples([5, 1, 17, 3, 2, 9, 4, 8])
  const alone = flat(await oneStep({ key }))
  const cuts = {
    '1 micro-batch': [units],
    '2 micro-batches': [units.slice(0, 3), units.slice(3)],
    '8 micro-batches': units.map((unit) => [unit]),
  }
  for (const [name, parts] of Object.entries(cuts)) {
    const noisy = flat(await oneStep({ key, units: parts }))
    const noiseless = flat(await oneStep({ key, units: parts, noise: 0 }))
    const noise = noisy.map((value, i) => value - noiseless[i]!)
    const furthest = noise.reduce((most, value, i) => Math.max(most, Math.abs(value - alone[i]!)), 0)
    t.ok(furthest < 1e-5, `${name}: the noise of the empty batch, up to ${furthest}`)
    t.ok(Math.abs(varianceInDeviations(noise)) < 5, `${name}: variance 1`)
  }
})

t.test('the noise does not depend on how gradients are clipped', async (t) => {
  const key = seedKey(13)
  const before = await oneStep({ key, clipping: 'flat' })
  for (const clipping of ['per-layer', 'automatic'] as const) {
    t.strictSame(flat(await oneStep({ key, clipping })), flat(before), clipping)
  }
})

t.test('other steps and other keys have other noise; the same key and step the same', async (t) => {
  const key = osKey()
  const noise = flat(await oneStep({ key, step: 3 }))
  t.same(flat(await oneStep({ key, step: 3 })), noise, 'a key from the operating system replays within the process')
  const others = { step: flat(await oneStep({ key, step: 4 })), key: flat(await oneStep({ key: osKey(), step: 3 })) }
  for (const [what, other] of Object.entries(others)) {
    t.equal(other.filter((value, i) => value === noise[i]).length, 0, `another ${what}`)
    t.ok(Math.abs(correlationInDeviations(other, noise)) < 6, `another ${what} is independent`)
  }
})

t.test('a frozen parameter gets no noise', async (t) => {
  const model = tinyModel(device)
  model.embedding.freeze()
  const before = await readWeights(model)
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(model.parameters(), { learningRate: 1 }),
    key: seedKey(14),
    noiseMultiplier,
    maxGradNorm,
    expectedBatchSize,
  })
  await optimizer.step(0, [], model.loss.bind(model))
  const moved = difference(await readWeights(model), before)
  for (const [name, values] of moved) {
    t.equal(
      values.every((value) => value === 0),
      name === 'embedding.weight',
      name,
    )
  }
})

t.test('as many draws beyond 5 deviations as a normal has', async (t) => {
  const block = 2 ** 24
  const init = new Initializer(device, 15)
  let beyond = 0
  let largest = 0
  for (let stream = 0; stream < 8; stream++) {
    const parameter = init.normal([block], 1)
    const draws = (await parameter.tensor.data()) as Float32Array
    for (const value of draws) {
      const size = Math.abs(value)
      if (size > 5) beyond++
      if (size > largest) largest = size
    }
    parameter[Symbol.dispose]()
  }
  const expected = 8 * block * 5.733e-7
  t.ok(Math.abs(beyond - expected) < 5 * Math.sqrt(expected), `${beyond} draws, ${expected} expected`)
  t.ok(largest > 5.4 && largest < 7, `the largest is ${largest}`)
})
