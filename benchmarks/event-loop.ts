import { Device } from '../lib/engine/index.js'
import { adamW } from '../lib/optim/adam.js'
import { seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'
import { referenceBatches, referenceBatchSize, referenceModel } from './reference-model.js'

/**
 * How free the event loop is while the reference model trains privately: when a timer of 10 ms fires.
 *
 *     node --import tsx benchmarks/event-loop.ts [THREADS] [SECONDS]
 *
 * Prints one line of JSON: milliseconds from setting the timer to its call, median, 99th percentile and maximum.
 */
const [threads = '2', seconds = '10'] = process.argv.slice(2)
const device = Device.open('cpu', { threads: Number(threads) })
const model = referenceModel(device)
const optimizer = new PrivateOptimizer({
  optimizer: adamW(model.parameters(), { learningRate: 1e-4 }),
  key: seedKey(1),
  noiseMultiplier: 1,
  maxGradNorm: 1,
  expectedBatchSize: referenceBatchSize,
})
const batches = referenceBatches(4)

const delays: number[] = []
let training = true
function tick(): void {
  const set = performance.now()
  setTimeout(() => {
    delays.push(performance.now() - set)
    if (training) tick()
  }, 10)
}

let steps = 0
const start = performance.now()
for (; steps < 3 || performance.now() < start + 1000 * Number(seconds); steps++) {
  if (steps === 2) tick() // the first steps compile
  await optimizer.step(steps, [() => batches[steps % batches.length]!.make(device)], model.loss.bind(model))
}
training = false
delays.sort((a, b) => a - b)
console.log(
  JSON.stringify({
    what: '10 ms timer during private training',
    threads: Number(threads),
    steps,
    stepMs: (performance.now() - start) / steps,
    timers: delays.length,
    medianMs: delays[delays.length >> 1],
    p99Ms: delays[Math.floor(0.99 * delays.length)],
    maxMs: delays.at(-1),
  }),
)
device.close()
