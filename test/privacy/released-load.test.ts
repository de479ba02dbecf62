import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { effectiveNoiseMultiplier } from '../../lib/accounting/index.js'
import { LoadEstimate } from '../../lib/autograd/load-balance.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { mergeAdapters, setTrainable } from '../../lib/nn/trainable.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { loadNoise } from '../../lib/privacy/load-noise.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer, type PrivateOptimizerOptions } from '../../lib/privacy/private-optimizer.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { batchOf, type Example, examples, tinyModel } from '../support/models.js'
import { type Subject, squaredNormsByParameter, stepRandom, writtenSquaredNorms } from '../support/sites.js'
import { releasedWeights, tinyRun } from '../train/support/runs.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const EXPERTS = 4
const K = 2
const units = examples([5, 9, 0, 17, 1, 30])

function modelOf(releaseLoad = true): Model {
  const options = { numExperts: EXPERTS, expertsPerToken: K, balanceLoss: 0.3, sparseEvery: 1 }
  const model = tinyModel(device, { ...options, releaseLoad })
  for (const estimate of estimatesOf(model)) estimate.tensor.fill(0)
  return model
}
type Model = ReturnType<typeof tinyModel>
const estimatesOf = (model: Model) => model.parameters().filter((parameter) => parameter instanceof LoadEstimate)
const valuesOf = async (estimate: LoadEstimate) => Array.from((await estimate.tensor.data()) as Float32Array)

/** Loads of a unit by layer, from how the model routes it when it is alone. */
async function loadsOf(model: Model, unit: Example): Promise<number[][]> {
  const layers: Promise<Int32Array>[] = []
  await device.scope(() => {
    const tape = new Tape(device)
    for (const { feedForward } of model.layers) {
      const original = feedForward.forward.bind(feedForward)
      feedForward.forward = ((x, context) => {
        const output = original(x, context)
        if ('routing' in output) layers.push(output.routing.expert.data() as Promise<Int32Array>)
        return output
      }) as typeof feedForward.forward
    }
    return model.logits(batchOf(device, [unit]), { tape, training: false }).data()
  })
  for (const layer of model.layers) delete (layer.feedForward as { forward?: unknown }).forward
  return Promise.all(
    layers.map(async (experts) => {
      const chosen = Array.from(await experts)
      const share = (expert: number) => chosen.filter((one) => one === expert).length / unit.ids.length
      return Array.from({ length: EXPERTS }, (_, expert) => (unit.ids.length === 0 ? 0 : share(expert) - K / EXPERTS))
    }),
  )
}

function optimizerOf(model: Model, options: Partial<PrivateOptimizerOptions> = {}): PrivateOptimizer {
  const optimizer = sgd(model.trainableParameters(), { learningRate: 0 })
  return new PrivateOptimizer({
    optimizer,
    key: seedKey(1),
    noiseMultiplier: 0,
    maxGradNorm: 1,
    expectedBatchSize: 5,
    ...options,
  })
}

t.test('the estimate follows the mean deviation of past batches from a uniform load', async (t) => {
  const model = modelOf()
  const estimates = estimatesOf(model)
  t.equal(estimates.length, 2)
  const loads = await Promise.all(units.map((unit) => loadsOf(model, unit)))
  const mean = estimates.map((_, layer) =>
    Array.from({ length: EXPERTS }, (_, expert) => loads.reduce((sum, unit) => sum + unit[layer]![expert]!, 0) / 5),
  )
  t.ok(Math.max(...mean.flat().map(Math.abs)) > 0.05, 'there is something to see')
  using training = optimizerOf(model)
  for (let step = 0; step < 3; step++) {
    await training.step(
      step,
      [() => batchOf(device, units.slice(0, 2)), () => batchOf(device, units.slice(2))],
      model.loss.bind(model),
    )
    const known = 1 - 0.9 ** (step + 1)
    for (const [layer, estimate] of estimates.entries()) {
      for (const [expert, value] of (await valuesOf(estimate)).entries()) {
        const expected = known * mean[layer]![expert]!
        t.ok(Math.abs(value - expected) < 2e-3 * Math.abs(expected) + 1e-6, `step ${step}: ${value} for ${expected}`)
      }
    }
  }
})

t.test('the loss of a step sees past releases only', async (t) => {
  const model = modelOf()
  const lossOf = (): Promise<Float32Array> =>
    device.scope(() => {
      const tape = new Tape(device, { add: () => [] })
      return model.loss(batchOf(device, units), { tape, training: true }).data()
    }) as Promise<Float32Array>
  const first = await lossOf()
  const ofClasses = await device.scope(() => {
    const tape = new Tape(device)
    const batch = batchOf(device, units)
    return crossEntropy(tape, model.logits(batch, { tape, training: false }), batch.labels).data()
  })
  t.same(first, ofClasses, 'nothing is known at first, so no balance loss')
  using training = optimizerOf(model)
  await training.step(0, [() => batchOf(device, units)], model.loss.bind(model))
  const second = await lossOf()
  t.notSame(second, first)
  t.equal(second[2], first[2], 'a unit without rows has no balance loss')
  t.same(await lossOf(), second)
})

t.test('bounds, norms and bits of a unit', async (t) => {
  const model = modelOf()
  using training = optimizerOf(model)
  await training.step(0, [() => batchOf(device, units)], model.loss.bind(model))
  const loss = model.loss.bind(model)
  const subject: Subject<Example, ReturnType<typeof batchOf>> = {
    device,
    module: model,
    loss,
    batch: (some) => batchOf(device, some),
  }
  const random = stepRandom(device)
  const norms = await squaredNormsByParameter(subject, units, random)
  const written = await writtenSquaredNorms(subject, units, random)
  for (const parameter of model.trainableParameters()) {
    for (const index of units.keys()) {
      const expected = written.get(parameter.name)![index]!
      const got = norms.get(parameter.name)![index]!
      t.ok(
        Math.abs(got - expected) <= 3e-3 * expected + 1e-8,
        `${parameter.name} of unit ${index}: ${got}, ${expected}`,
      )
      if (parameter instanceof LoadEstimate) t.ok(got <= parameter.squaredBound * (1 + 1e-6), 'within its bound')
    }
  }
  const others = [...examples([40, 2], undefined, 9), ...units.slice(2)]
  for (const [name, values] of await squaredNormsByParameter(subject, others, random)) {
    t.same(values.slice(2), norms.get(name)!.slice(2), `${name}: the same bits among others`)
  }
})

t.test('both releases together are one Gaussian with sigma', async (t) => {
  const model = modelOf()
  for (const sigma of [0.6, 1.3]) {
    using training = optimizerOf(model, { noiseMultiplier: sigma, maxGradNorm: 0.7 })
    const [gradient, load] = training.releases
    t.match(gradient, { name: 'gradient', bound: 0.7, weight: 1 / 1.02 })
    t.match(load, { name: 'expert load', bound: Math.sqrt(2 * K * (1 - K / EXPERTS)) })
    const releases = training.releases.map((release) => ({
      bound: release.bound,
      standardDeviation: (sigma * release.bound) / Math.sqrt(release.weight),
    }))
    t.ok(Math.abs(effectiveNoiseMultiplier(releases) - sigma) < 1e-9)
    t.ok(Math.abs(training.noiseDeviation - releases[0]!.standardDeviation) < 1e-9)
  }
  using plain = optimizerOf(modelOf(false), { noiseMultiplier: 1 })
  t.same(plain.releases, [{ name: 'gradient', bound: 1, weight: 1 }])
  t.equal(plain.noiseDeviation, 1)
})

t.test('the noise that is drawn is the noise that is stated', async (t) => {
  const model = modelOf()
  const estimates = estimatesOf(model)
  for (const estimate of estimates) estimate.smoothing = 1
  using training = optimizerOf(model, { noiseMultiplier: 2, expectedBatchSize: 1 })
  const values: number[] = []
  const STEPS = 400
  for (let step = 0; step < STEPS; step++) {
    await training.step(step, [], model.loss.bind(model))
    for (const estimate of estimates) values.push(...(await valuesOf(estimate)))
  }
  const [, { bound, weight }] = training.releases as [unknown, { bound: number; weight: number }]
  const deviation = (2 * bound) / Math.sqrt(weight)
  const variance = values.reduce((sum, value) => sum + (value / deviation) ** 2, 0) / values.length
  t.equal(values.length, STEPS * EXPERTS * 2)
  t.ok(
    Math.abs(variance - 1) < 5 * Math.sqrt(2 / values.length),
    `${variance} of the stated variance, an empty batch counts`,
  )
  const rows = new Set(values.map((value) => value.toPrecision(6)))
  t.ok(rows.size > 0.999 * values.length, 'no number is drawn twice')
})

t.test('how noisy a release is, and the smoothing chosen from it', async (t) => {
  const layers = (experts: number, k: number, count: number) =>
    Array.from({ length: count }, () => new LoadEstimate(device.zeros([experts]), k))
  for (const [experts, k, count, batch, expected] of [
    [8, 1, 6, 1024, 0.08],
    [8, 1, 6, 256, 0.31],
    [64, 8, 16, 1024, 0.35],
    [128, 8, 48, 1024, 1.27],
  ] as const) {
    const { ofRelease, ofEstimate, smoothing } = loadNoise(layers(experts, k, count), 0.6, batch)!
    t.ok(Math.abs(ofRelease - expected) < 0.006, `${experts} experts: ${ofRelease}`)
    t.ok(ofEstimate <= 0.1001 || smoothing === 0.02, `${ofEstimate} with smoothing ${smoothing}`)
  }
  t.match(loadNoise(layers(8, 1, 1), 0, 10), { ofRelease: 0, smoothing: 1 })
  t.equal(loadNoise([], 1, 10), undefined)
})

t.test('with other settings', async (t) => {
  const model = modelOf()
  t.throws(() => optimizerOf(model, { clipping: 'automatic' }), { code: 'INVALID_ARGUMENT', message: /released loads/ })
  setTrainable(model, 'lora', new Initializer(device, 2), { head: /^head\./, rank: 2 })
  t.ok(
    estimatesOf(model).every(({ trainable }) => trainable),
    'the load is known whatever trains',
  )
  mergeAdapters(model)
  const perLayer = modelOf()
  const engine = new PrivacyEngine({ seed: 1 })
  const training = engine.makePrivate({
    module: perLayer,
    optimizer: sgd(perLayer.trainableParameters(), { learningRate: 0.1 }),
    data: { length: 100 },
    noiseMultiplier: 1,
    maxGradNorm: 1,
    expectedBatchSize: 10,
    epochs: 1,
    clipping: 'per-layer',
  })
  t.ok(training.loadNoise!.ofRelease > 0.3)
  t.equal(estimatesOf(perLayer)[0]!.smoothing, training.loadNoise!.smoothing)
  const statistics = await training.step(0, [() => batchOf(device, units)], perLayer.loss.bind(perLayer))
  t.ok(statistics.clippedFraction >= 0 && statistics.clippedFraction <= 1)
})

t.test('a run that releases loads says so in its certificate, costs the same, and resumes', async (t) => {
  const root = t.testdir()
  const data = writeMails(root, 'mails.jsonl', 200)
  const config = { vocabularySize: 512, hiddenSize: 8, numLayers: 2, numAttentionHeads: 2, intermediateSize: 8 }
  const shape = { modelType: 'switch-classifier', ...config, numExperts: 4, maxPositions: 64 }
  const optionsOf = (name: string, releaseLoad: boolean) => ({
    ...tinyRun(data, join(root, name), { steps: 12, seed: 1, expectedBatchSize: 20, checkpointEvery: 4 }),
    model: { ...shape, releaseLoad },
  })
  const certificateOf = async (name: string, releaseLoad: boolean) => {
    await train(optionsOf(name, releaseLoad))
    return JSON.parse(readFileSync(join(root, name, 'release/certificate.json'), 'utf8'))
  }
  const [own, released] = [await certificateOf('own', false), await certificateOf('released', true)]
  t.same(own.releases, [{ name: 'gradient', bound: own.maxGradNorm, weight: 1 }])
  t.match(released.releases, [{ name: 'gradient' }, { name: 'expert load', bound: Math.sqrt(1 - 1 / 4) }])
  t.equal(released.epsilon, own.epsilon)
  const stop = new AbortController()
  const stopped = { ...optionsOf('stopped', true), signal: stop.signal }
  await t.rejects(train({ ...stopped, onProgress: ({ step }) => step === 6 && stop.abort() }), { code: 'ABORTED' })
  const { signal: _, ...again } = stopped
  await train({ ...again, resume: true })
  t.ok(releasedWeights(join(root, 'stopped')).equals(releasedWeights(join(root, 'released'))), 'bit-equal')
})
