// The bug classes of DP libraries that concern noise, keys and side outputs, by the numbers of docs/privacy-tests.md.
import { readdirSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import type { Parameter } from '../../lib/autograd/parameter.js'
import { Device } from '../../lib/engine/device.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Telemetry } from '../../lib/nn/telemetry.js'
import { adam, dpAdamBC } from '../../lib/optim/adam.js'
import type { Optimizer } from '../../lib/optim/optimizer.js'
import { sgd } from '../../lib/optim/sgd.js'
import { readCertificate } from '../../lib/privacy/certificate.js'
import { keyTensor, osKey, type RunKey, seedKey } from '../../lib/privacy/keys.js'
import { type MakePrivateOptions, PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { batchOf, examples, tinyModel } from '../support/models.js'
import { privateSum } from '../support/private-step.js'
import { difference, flat, readWeights } from '../support/weights.js'
import { tinyRun } from '../train/support/runs.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const model = tinyModel(device)
const loss = model.loss.bind(model)
const units = examples([5, 1, 17, 3])

function noisy(key: RunKey, optimizer: Optimizer = sgd(model.parameters(), { learningRate: 1 })) {
  return new PrivateOptimizer({ optimizer, key, noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: 1 })
}

t.test('bug class 13: what is released holds nothing that was computed without noise', async (t) => {
  const root = t.testdir()
  const data = writeMails(root, 'mails.jsonl', 200)
  const output = join(root, 'run')
  await train(tinyRun(data, output, { steps: 6, seed: 13 }))
  const released = join(output, 'release')
  t.same(readdirSync(released).sort(), ['certificate.json', 'config.json', 'model.safetensors'])
  const words = /loss|loads|clippedFraction|meanGradNorm|nonFinite|routing/i
  const config = readFileSync(join(released, 'config.json'), 'utf8')
  t.notMatch(config, words, 'config.json')
  const certificate = await readCertificate(join(released, 'certificate.json'))
  t.ok(certificate.mechanism !== 'none')
  const { notCovered: _, ...facts } = certificate as Exclude<typeof certificate, { mechanism: 'none' }>
  t.notMatch(JSON.stringify(facts), words, 'certificate.json')
  const safetensors = readFileSync(join(released, 'model.safetensors'))
  const header = safetensors.subarray(8, 8 + Number(safetensors.readBigUInt64LE(0))).toString()
  t.notMatch(header, words, 'model.safetensors')
  t.match(readFileSync(join(output, 'private/metrics.jsonl'), 'utf8'), /loss/, 'they are in the private folder')
})

t.test('bug class 13: expert loads are collected only where they are asked for', async (t) => {
  const telemetry = new Telemetry(device)
  const step = async (collector?: Telemetry) => {
    const before = await readWeights(model)
    using optimizer = noisy(seedKey(13))
    const result = await optimizer.step(0, [() => batchOf(device, units)], loss, collector)
    const moved = flat(difference(await readWeights(model), before))
    for (const [name, parameter] of model.namedParameters()) {
      parameter.tensor.write(Float32Array.from(before.get(name)!))
    }
    return { moved, keys: Object.keys(result).sort() }
  }
  const without = await step()
  const collected = await step(telemetry)
  t.strictSame(collected.moved, without.moved, 'collecting changes no bit of the update')
  t.ok(Object.keys(await telemetry.takeExpertLoads()).length > 0)
  const expected = ['clippedFraction', 'loss', 'meanGradNorm', 'nonFiniteUnits', 'rows', 'units']
  t.same(without.keys, expected, 'a step says no more than this, all of it private')
})

t.test('bug class 16: a place in the noise stream is used once', async (t) => {
  using optimizer = noisy(osKey())
  await optimizer.step(3, [], loss)
  for (const repeated of [3, 2, 0]) {
    await t.rejects(optimizer.step(repeated, [], loss), { code: 'INVALID_ARGUMENT', message: /noise would repeat/ })
  }
  for (const wrong of [4.5, -1, Number.NaN])
    await t.rejects(optimizer.step(wrong, [], loss), { code: 'INVALID_ARGUMENT' })
  await optimizer.step(4, [], loss)
})

t.test('bug class 16: trainings of one engine never share noise', async (t) => {
  const engine = new PrivacyEngine({ seed: 16 })
  const first: Float64Array[] = []
  const samples: string[] = []
  for (let training = 0; training < 3; training++) {
    const made = tinyModel(device)
    const options: MakePrivateOptions = {
      module: made,
      optimizer: sgd(made.parameters(), { learningRate: 1 }),
      data: { length: 500 },
      noiseMultiplier: 1,
      maxGradNorm: 1,
      expectedBatchSize: 50,
      steps: 5,
    }
    const { step, sampler } = engine.makePrivate(options)
    const before = await readWeights(made)
    await step(0, [], made.loss.bind(made))
    first.push(flat(difference(await readWeights(made), before)))
    samples.push(sampler.sample(0).join())
  }
  for (const [a, b] of [
    [0, 1],
    [0, 2],
    [1, 2],
  ] as const) {
    const shared = first[a]!.filter((value, i) => value === first[b]![i]).length
    t.ok(shared <= 2, `trainings ${a} and ${b} share ${shared} of ${first[a]!.length} values`)
    t.not(samples[a], samples[b], 'nor their samples')
  }
})

t.test('bug class 16: keys come from the operating system unless a seed is given', (t) => {
  const keys = Array.from({ length: 50 }, () => new PrivacyEngine().key)
  t.equal(new Set(keys.map(({ bytes }) => Buffer.from(bytes).toString('hex'))).size, 50)
  t.ok(keys.every(({ source, bytes }) => source === 'os' && bytes.length === 32))
  t.equal(new PrivacyEngine({ seed: 1 }).key.source, 'seed')
  t.throws(() => new PrivacyEngine({ seed: 1, key: osKey() }), { code: 'INVALID_ARGUMENT' })
  t.end()
})

t.test('bug class 16: every parameter, step and key has noise of its own', async (t) => {
  const seen = new Set<number>()
  let drawn = 0
  for (const [key, step] of [
    [seedKey('a'), 0],
    [seedKey('a'), 1],
    [seedKey('b'), 0],
  ] as const) {
    const noise = await privateSum(model, loss, [], { key, step, noiseMultiplier: 1e3 })
    for (const values of noise.values()) {
      for (const value of values) seen.add(value)
      drawn += values.length
    }
  }
  t.ok(seen.size > 0.99 * drawn, `${seen.size} of ${drawn} values differ`)
})

t.test('bug class 17: the uniforms under the Gaussian have more than 32 bits', async (t) => {
  const count = 1 << 24
  const y = device.empty([count])
  const key = keyTensor(device, seedKey(17))
  device.run('gaussian', { key, y, first: 0, size: count, step: 0, stream: 0 })
  const draws = (await y.data()) as Float32Array
  // Box-Muller pairs lie 16 apart (native/random/gaussian.h); exp(-radius^2 / 2) gives their uniform back. Small ones are
  // known to well below 2^-32, so a multiple of 2^-32 would show.
  let small = 0
  let multiples = 0
  for (let i = 0; i < count; i++) {
    if (i % 32 >= 16) continue
    const uniform = Math.exp(-(draws[i]! ** 2 + draws[i + 16]! ** 2) / 2)
    if (uniform > 2 ** -18) continue
    small++
    const steps = uniform * 2 ** 32
    if (Math.abs(steps - Math.round(steps)) < 0.05) multiples++
  }
  t.ok(small > 12 && small < 60, `${small} uniforms below 2^-18, 32 expected`)
  t.ok(multiples < small / 2, `${multiples} of them are near multiples of 2^-32`)
  const distinct = new Set(draws.filter((value) => Math.abs(value) < 1e-4))
  t.ok(distinct.size > 1200, `${distinct.size} distinct values near 0`)
})

t.test('bug class 25: DP-AdamBC takes the noise out of the second moment', async (t) => {
  const learningRate = 1e-3
  const steps = 400
  const meanStep = async (optimizer: (parameters: Parameter[]) => Optimizer) => {
    const parameter = new Initializer(device, 0).zeros([3000])
    parameter.name = 'weight'
    const made = optimizer([parameter])
    const key = keyTensor(device, seedKey(25))
    const gradient = new Float32Array(parameter.size).fill(0.5)
    for (let step = 0; step < steps; step++) {
      parameter.gradient.write(gradient)
      made.update({ step, divisor: 10, noise: { key, deviation: 1 } })
    }
    const values = (await parameter.tensor.data()) as Float32Array
    return values.reduce((sum, value) => sum - value, 0) / values.length / (steps * learningRate)
  }
  // The gradient is 0.05 and the noise 0.1 in every entry: Adam divides by sqrt(0.05^2 + 0.1^2), AdamBC by about 0.05.
  const beta2 = 0.9999
  const plain = await meanStep((parameters) => adam(parameters, { learningRate, beta2 }))
  t.ok(Math.abs(plain - 0.05 / Math.hypot(0.05, 0.1)) < 0.02, `Adam: ${plain}`)
  const corrected = await meanStep((parameters) => dpAdamBC(parameters, { learningRate, beta2, varianceFloor: 1e-4 }))
  t.ok(corrected > 0.9 && corrected < 1.3, `DP-AdamBC: the mean step is that of the clean gradient, ${corrected}`)
})
