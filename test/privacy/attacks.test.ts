import { existsSync, symlinkSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Parameter } from '../../lib/autograd/parameter.js'
import { addWeightedGradient } from '../../lib/autograd/sinks.js'
import { Device } from '../../lib/engine/device.js'
import { SafetensorsFile } from '../../lib/models/safetensors.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { batchOf, examples, tinyModel } from '../support/models.js'
import { correlation } from '../support/statistics.js'
import { tinyRun } from '../train/support/runs.js'

const root = t.testdir()
const data = writeMails(root, 'mails.jsonl', 300)
const keyFile = join(root, 'key')
writeFileSync(keyFile, Buffer.alloc(32, 0x5c))
let runs = 0

/** The released experts of a run of one step: almost nothing but the noise of that step. */
async function oneStep(more: Partial<TrainOptions>): Promise<Float32Array> {
  const output = join(root, `run-${runs++}`)
  const small = { train: data, keyFile, steps: 1, learningRate: 1, noiseMultiplier: 50, targetDelta: 1e-3 }
  await train(tinyRun(data, output, { ...small, ...more }))
  await using file = await SafetensorsFile.open(join(output, 'release/model.safetensors'))
  const name = [...file.tensors.keys()].find((one) => one.startsWith('experts.') && !one.includes('router'))!
  return file.readFloat32(name)
}

t.test('one key file for several runs: their noise is independent, so no difference shows a gradient', async (t) => {
  const first = await oneStep({})
  t.ok(first.length > 40)
  t.same(await oneStep({}), first, 'all the same: the same weights')
  const other = writeMails(root, 'other.jsonl', 299)
  for (const change of [
    { train: other, expectedBatchSize: 59.8, sampleRate: 0.2 },
    { maxGradNorm: 0.4 },
    { learningRate: 0.5 },
    { noiseMultiplier: 49 },
    { clipping: 'per-layer' },
    { relation: 'replace-one' },
    { labels: ['ham', 'spam'] },
  ] as const) {
    t.ok(Math.abs(correlation(first, await oneStep(change))) < 0.75, JSON.stringify(Object.keys(change)))
  }
})

using probe = Device.open('cpu', { threads: 1 })
const otherKernels = probe.info.instructionSet === 'base' ? { skip: 'this processor has one kind of kernels' } : {}

t.test('one key file on two kinds of processor: last bits differ, so the noise must too', otherKernels, async (t) => {
  const before = await oneStep({})
  const output = join(root, 'two-kinds')
  const stopping = { steps: 2, checkpointEvery: 1, keyFile }
  const signal = new AbortController()
  const stop = { signal: signal.signal, onProgress: () => signal.abort() }
  await t.rejects(train(tinyRun(data, output, { ...stopping, ...stop })), { code: 'ABORTED' })
  t.teardown(() => {
    delete process.env.DP_MOE_ISA
  })
  process.env.DP_MOE_ISA = 'base'
  t.ok(Math.abs(correlation(before, await oneStep({}))) < 0.75)
  await t.rejects(train(tinyRun(data, output, { ...stopping, resume: true })), {
    code: 'INVALID_ARGUMENT',
    message: /configuration differs .* on the same kind of processor/,
  })
})

t.test('a key file in the run folder is refused, by whatever path', async (t) => {
  const output = join(root, 'run-with-key')
  await train(tinyRun(data, output, { steps: 1 }))
  writeFileSync(join(output, 'private/key'), Buffer.alloc(32, 7))
  symlinkSync(join(output, 'private'), join(root, 'link'))
  for (const keyFile of [join(output, 'private/key'), join(root, 'link/key')]) {
    const again = tinyRun(data, output, { steps: 1, keyFile, overwrite: true })
    await t.rejects(train(again), { code: 'INVALID_ARGUMENT', message: /is in the run folder/ })
  }
  t.ok(existsSync(join(output, 'release/model.safetensors')), 'the run is left as it was')
})

t.test('a step begun before the last one has ended is refused: both would add to the same gradients', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const model = tinyModel(device)
  const optimizer = sgd(model.parameters(), { learningRate: 1 })
  const units = examples([3, 4, 5, 6])
  const batch = [units.slice(0, 2), units.slice(2)].map((part) => () => batchOf(device, part))
  const options = { optimizer, noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: 2 }
  using training = new PrivateOptimizer({ ...options, key: seedKey(1) })
  const first = training.step(0, batch, model.loss.bind(model))
  using other = new PrivateOptimizer({ ...options, key: seedKey(2) })
  for (const [one, step] of [
    [training, 0],
    [training, 1],
    [other, 0],
  ] as const) {
    await t.rejects(one.step(step, batch, model.loss.bind(model)), { code: 'INVALID_ARGUMENT', message: /await/ })
  }
  t.equal((await first).units, 4)
  t.equal((await training.step(1, batch, model.loss.bind(model))).units, 4)
})

t.test('bounds and noise that float32 cannot hold are refused', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const optimizer = sgd(tinyModel(device).parameters(), { learningRate: 1 })
  for (const [maxGradNorm, noiseMultiplier, name] of [
    [1e-44, 1, /maxGradNorm/],
    [1e-31, 1, /maxGradNorm/],
    [2e29, 1, /maxGradNorm/],
    [1e-30, 1e-9, /noiseMultiplier/],
    [1, 1e-300, /noiseMultiplier/],
  ] as const) {
    const options = { optimizer, key: seedKey(1), expectedBatchSize: 1, maxGradNorm, noiseMultiplier }
    t.throws(() => new PrivateOptimizer(options), name, `${maxGradNorm}, ${noiseMultiplier}`)
  }
})

t.test('names that nobody knows are refused before a step, whatever the types say', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const module = tinyModel(device)
  const optimizer = sgd(module.parameters(), { learningRate: 1 })
  t.throws(() => new PrivacyEngine({ relation: 'add-or-remove' as 'add-or-remove-one' }), /for relation/)
  t.throws(() => new PrivacyEngine({ accountant: 'prv' as 'pld' }), /accountant/)
  const made = { module, optimizer, data: { length: 9 }, noiseMultiplier: 1, expectedBatchSize: 3, steps: 1 }
  for (const [more, message] of [
    [{ maxGradNorm: 1, clipping: 'Automatic' as 'automatic' }, /for clipping/],
    [{ maxGradNorm: '1' as unknown as number }, /for maxGradNorm/],
  ] as const) {
    t.throws(() => new PrivacyEngine({ seed: 1 }).makePrivate({ ...made, ...more }), message)
  }
})

t.test('one unit moves a float32 sum by its own part, whatever roundings it shifts', async (t) => {
  using device = Device.open('cpu', { threads: 2 })
  // Half the units have norm 1 and fill the sum up to a power of two; the others are rounded up above it, and not below.
  const half = 2048
  const small = half * 2 ** -24 * (1 + 2 ** -10)
  const sum = async (op: 'embedding' | 'bias' | 'linear', first: number) => {
    const values = Float32Array.from({ length: 2 * half }, (_, unit) => (unit >= half ? small : unit > 0 ? 1 : first))
    const units = values.length
    const bounds = Int32Array.from({ length: units + 1 }, (_, unit) => unit)
    const segments = {
      offsets: device.tensor(bounds, [units + 1], 'int32'),
      segments: units,
      units,
      lengths: new Int32Array(units).fill(1),
      fanOut: 1,
    }
    const parameter = new Parameter(device.zeros([1, 1]))
    const site = { parameter, dy: device.tensor(values, [units, 1]), segments }
    const x = device.tensor(new Float32Array(units).fill(1), [units, 1])
    const ids = device.tensor(new Int32Array(units), [units], 'int32')
    const factor = device.tensor(new Float32Array(units).fill(1))
    if (op === 'embedding') addWeightedGradient({ kind: op, ...site, ids }, factor)
    else if (op === 'linear') addWeightedGradient({ kind: op, ...site, x }, factor)
    else addWeightedGradient({ kind: op, ...site }, factor)
    return (await parameter.gradient.data())[0]!
  }
  for (const op of ['embedding', 'bias', 'linear'] as const) {
    const moved = (await sum(op, 1)) - (await sum(op, 0))
    t.ok(Math.abs(moved - 1) < 2 ** -9, `${op}: ${moved}`)
  }
})
