import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { Device } from '../lib/engine/index.js'
import { cases, microBatchesOf, stepOf, subjects, unitsOf } from './subjects.js'

/**
 * Memory of one training step, private beside plain, each in a process of its own.
 *
 *     node --import tsx benchmarks/step-memory.ts [CASE...]
 *
 * Prints a line of JSON for each case and mode: the most bytes that tensors held at once, what weights and gradients take
 * of them, and the process's own peak.
 */

const modes = ['plain', 'private', 'plain with checkpoints', 'private with checkpoints']

async function measure(name: string, mode: string): Promise<void> {
  const chosen = cases[name]!
  using device = Device.open('cpu', { threads: 2 })
  const subject = subjects[chosen.model](device)
  const { module } = subject
  module.setActivationCheckpointing(mode.endsWith('checkpoints'))
  for (const parameter of module.trainableParameters()) parameter.gradient.fill(0)
  await device.synchronize()
  const state = device.memory().live
  const units = unitsOf(chosen)
  const microBatches = microBatchesOf(subject, units, chosen.maxTokens)
  const kind = mode.startsWith('private') ? 'private' : 'plain'
  const step = stepOf(kind, device, subject, microBatches, units.length)
  const started = performance.now()
  await step(0)
  const seconds = (performance.now() - started) / 1000
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20)
  const { peak } = device.memory()
  console.log(
    JSON.stringify({
      what: 'memory of a step',
      case: name,
      mode,
      microBatches: microBatches.length,
      maxTokens: chosen.maxTokens,
      weightsAndGradientsMib: mebibytes(state),
      peakMib: mebibytes(peak),
      processMib: Math.round(process.resourceUsage().maxRSS / 1024),
      seconds: Number(seconds.toFixed(1)),
    }),
  )
}

const [first, ...rest] = process.argv.slice(2)
if (first === '--one') {
  await measure(rest[0]!, rest[1]!)
} else {
  const run = promisify(execFile)
  const names = first === undefined ? Object.keys(cases) : [first, ...rest]
  for (const name of names) {
    for (const mode of modes) {
      const args = ['--import', 'tsx', fileURLToPath(import.meta.url), '--one', name, mode]
      const { stdout } = await run(process.execPath, args)
      process.stdout.write(stdout)
    }
  }
}
