import { execFile } from 'node:child_process'
import { mkdtemp, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Device } from '../lib/engine/index.js'
import { BertClassifier } from '../lib/models/bert.js'
import type { BertConfig } from '../lib/models/bert-config.js'
import { Initializer } from '../lib/nn/initializer.js'
import { bertConfig } from './subjects.js'

/**
 * Time and memory of saving and of loading a BERT with 8 experts and 100 million parameters, each in a process of its own.
 *
 *     node --import tsx benchmarks/model-files.ts
 *
 * Prints lines of JSON: seconds, processor seconds, and by how much the peak of the process's memory lies above what it was
 * before, as a multiple of the weights' bytes: loading makes one copy, saving none.
 */
const config: BertConfig = {
  ...bertConfig,
  hiddenSize: 512,
  intermediateSize: 2048,
  numLayers: 8,
  numAttentionHeads: 8,
  mixture: { ...bertConfig.mixture, layers: [1, 3, 5, 7] },
}

async function measure<T>(what: string, work: () => Promise<T>, bytesOf: (value: T) => number): Promise<T> {
  const peak = () => process.resourceUsage().maxRSS * 1024
  const before = process.memoryUsage.rss()
  const processor = process.cpuUsage()
  const started = performance.now()
  const value = await work()
  const seconds = (performance.now() - started) / 1000
  const { user, system } = process.cpuUsage(processor)
  const bytes = bytesOf(value)
  console.log(
    JSON.stringify({
      what,
      parameters: bytes / 4,
      seconds,
      processorSeconds: (user + system) / 1e6,
      peakOfWeights: Math.max(0, peak() - before) / bytes,
    }),
  )
  return value
}

const sizeOf = (model: BertClassifier) => 4 * model.parameters().reduce((sum, { tensor }) => sum + tensor.size, 0)

const [mode, path] = process.argv.slice(2)
if (mode === 'save') {
  using device = Device.open('cpu', { threads: 2 })
  using model = new BertClassifier(new Initializer(device, 1), config)
  await device.synchronize()
  await measure(
    'save',
    async () => model.savePretrained(path!),
    () => sizeOf(model),
  )
} else if (mode === 'load') {
  using device = Device.open('cpu', { threads: 2 })
  const load = async () => {
    const model = await BertClassifier.fromPretrained(device, path!)
    await device.synchronize()
    return model
  }
  using _ = await measure('load', load, sizeOf)
} else {
  const folder = await mkdtemp(join(tmpdir(), 'dp-moe-files-'))
  try {
    for (const part of ['save', 'load', 'load', 'load']) {
      const args = ['--import', 'tsx', fileURLToPath(import.meta.url), part, join(folder, 'model')]
      process.stdout.write((await promisify(execFile)(process.execPath, args)).stdout)
    }
  } finally {
    await rm(folder, { recursive: true })
  }
}
