import { Device } from '../lib/engine/index.js'
import { accumulateGradients, sumSink } from '../lib/nn/accumulate.js'
import { adamW } from '../lib/optim/adam.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'
import { seedKey } from '../lib/privacy/keys.js'
import { referenceBatches, referenceBatchSize, referenceFlops, referenceModel } from './reference-model.js'

/**
 * Times one training step of the reference model, in this process alone so that its peak memory is its own.
 *
 *     node --import tsx benchmarks/step.ts private|plain THREADS [SECONDS]
 *
 * Prints one line of JSON: median and minimum step time in ms, peak memory in MB, floating-point operations of a step.
 */
const [mode = 'private', threads = '2', seconds = '10'] = process.argv.slice(2)
const device = Device.open('cpu', { threads: Number(threads) })
const model = referenceModel(device)
const optimizer = adamW(model.parameters(), { learningRate: 1e-4 })
const batches = referenceBatches(4)
const loss = model.loss.bind(model)
const made = new PrivateOptimizer({
  optimizer,
  key: seedKey(1),
  noiseMultiplier: 1,
  maxGradNorm: 1,
  expectedBatchSize: referenceBatchSize,
})

async function step(index: number): Promise<void> {
  const microBatch = () => batches[index % batches.length]!.make(device)
  if (mode === 'private') {
    await made.step(index, [microBatch], loss)
  } else {
    await accumulateGradients(device, [microBatch], loss, sumSink)
    device.scope(() => optimizer.update({ step: index, divisor: referenceBatchSize }))
  }
  await device.synchronize()
}

const times: number[] = []
const end = performance.now() + 1000 * Number(seconds)
for (let index = 0; index < 4 || (performance.now() < end && index < 200); index++) {
  const start = performance.now()
  await step(index)
  if (index >= 2) times.push(performance.now() - start)
}
times.sort((a, b) => a - b)
const flops = batches.reduce((sum, batch) => sum + referenceFlops(batch), 0) / batches.length
console.log(
  JSON.stringify({
    what: `dp-moe ${mode}`,
    threads: Number(threads),
    instructionSet: device.info.instructionSet,
    medianMs: times[times.length >> 1],
    minMs: times[0],
    steps: times.length,
    peakMb: Math.round(process.resourceUsage().maxRSS / 1024),
    gflop: flops / 1e9,
  }),
)
device.close()
