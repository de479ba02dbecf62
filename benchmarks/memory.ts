import { Device } from '../lib/engine/index.js'
import { sgd } from '../lib/optim/sgd.js'
import { seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'
import { referenceBatches, referenceModel } from './reference-model.js'

/**
 * Whether memory stays flat: private steps of the reference model on batches of 16 texts.
 *
 *     node --expose-gc --import tsx benchmarks/memory.ts [THREADS] [STEPS]
 *
 * Prints a line of JSON: megabytes of the process and bytes of the engine's tensors after 100 steps and after the last.
 */
const [threads = '2', steps = '500'] = process.argv.slice(2)
const device = Device.open('cpu', { threads: Number(threads) })
const model = referenceModel(device)
const texts = 16
const optimizer = new PrivateOptimizer({
  optimizer: sgd(model.parameters(), { learningRate: 1e-3 }),
  key: seedKey(1),
  noiseMultiplier: 1,
  maxGradNorm: 1,
  expectedBatchSize: texts,
})
const batches = referenceBatches(8, 1, texts)
const loss = model.loss.bind(model)

async function measure() {
  await device.synchronize()
  globalThis.gc?.()
  return { processMb: Math.round(process.memoryUsage.rss() / 2 ** 20), engine: device.memory() }
}

let early: Awaited<ReturnType<typeof measure>> | undefined
for (let step = 0; step < Number(steps); step++) {
  await optimizer.step(step, [() => batches[step % batches.length]!.make(device)], loss)
  if (step === 99) early = await measure()
}
const late = await measure()
console.log(
  JSON.stringify({ what: 'memory over private steps', threads: Number(threads), steps: Number(steps), early, late }),
)
device.close()
