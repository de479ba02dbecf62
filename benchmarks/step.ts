import { Device } from '../lib/engine/index.js'
import { accumulateGradients, sumSink } from '../lib/nn/accumulate.js'
import { adamW } from '../lib/optim/adam.js'
import { seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'
import { matrixSpeed } from './matrix-speed.js'
import { referenceBatches, referenceBatchSize, referenceFlops, referenceModel } from './reference-model.js'

/**
 * Times training steps of the reference model.
 *
 *     node --import tsx benchmarks/step.ts MODES THREADS [SECONDS]
 *
 * MODES is `plain`, `private` or `plain,private`; several take turns, step by step, so that a busy machine slows them
 * alike. Prints a line of JSON for each: median and minimum step time in ms, the process's peak memory in MB, the
 * floating-point operations of a step, and `flopLimitMs`, the time these would take at the speed of a large matrix product.
 */
const [modes = 'plain,private', threads = '2', seconds = '20'] = process.argv.slice(2)
const device = Device.open('cpu', { threads: Number(threads) })
const batches = referenceBatches(4)

/** A model and its optimizer; the private step and the plain one differ in nothing else. */
function stepper(mode: string): (index: number) => Promise<void> {
  const model = referenceModel(device)
  const optimizer = adamW(model.parameters(), { learningRate: 1e-4 })
  const loss = model.loss.bind(model)
  const microBatch = (index: number) => () => batches[index % batches.length]!.make(device)
  if (mode === 'plain') {
    return async (index) => {
      await accumulateGradients(device, [microBatch(index)], loss, sumSink)
      device.scope(() => optimizer.update({ step: index, divisor: referenceBatchSize }))
      await device.synchronize()
    }
  }
  const made = new PrivateOptimizer({
    optimizer,
    key: seedKey(mode),
    noiseMultiplier: 1,
    maxGradNorm: 1,
    expectedBatchSize: referenceBatchSize,
  })
  return async (index) => {
    await made.step(index, [microBatch(index)], loss)
    await device.synchronize()
  }
}

const steppers = modes.split(',').map((mode) => ({ mode, step: stepper(mode), times: [] as number[] }))
const end = performance.now() + 1000 * Number(seconds)
for (let index = 0; index < 4 || (performance.now() < end && index < 200); index++) {
  for (const { step, times } of steppers) {
    const start = performance.now()
    await step(index)
    if (index >= 2) times.push(performance.now() - start)
  }
}
const peakMb = Math.round(process.resourceUsage().maxRSS / 1024)
const gigaflops = batches.reduce((sum, batch) => sum + referenceFlops(batch), 0) / batches.length / 1e9
const speed = await matrixSpeed(device)
for (const { mode, times } of steppers) {
  times.sort((a, b) => a - b)
  console.log(
    JSON.stringify({
      what: `dp-moe ${mode}`,
      threads: Number(threads),
      instructionSet: device.info.instructionSet,
      steps: times.length,
      medianMs: times[times.length >> 1],
      minMs: times[0],
      peakMb,
      gigaflops,
      flopLimitMs: (1000 * gigaflops) / speed,
    }),
  )
}
device.close()
