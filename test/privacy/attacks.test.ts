import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { SafetensorsFile } from '../../lib/models/safetensors.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
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

function correlation(a: Float32Array, b: Float32Array): number {
  const dot = (x: Float32Array, y: Float32Array) => x.reduce((sum, value, i) => sum + value * y[i]!, 0)
  return dot(a, b) / Math.sqrt(dot(a, a) * dot(b, b))
}

t.test('one key file for several runs: their noise is independent, so no difference shows a gradient', async (t) => {
  const first = await oneStep({})
  t.ok(first.length > 40)
  t.same(await oneStep({}), first, 'all the same: the same weights')
  const other = writeMails(root, 'other.jsonl', 299)
  for (const change of [
    { train: other, expectedBatchSize: 59.8, sampleRate: 0.2 },
    { maxGradNorm: 0.25 },
    { learningRate: 0.5 },
    { noiseMultiplier: 49 },
    { clipping: 'per-layer' },
    { relation: 'replace-one' },
  ] as const) {
    t.ok(Math.abs(correlation(first, await oneStep(change))) < 0.75, JSON.stringify(Object.keys(change)))
  }
})
