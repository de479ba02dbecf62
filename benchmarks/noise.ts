import { Device } from '../lib/engine/index.js'
import { Initializer } from '../lib/nn/initializer.js'
import { sgd } from '../lib/optim/sgd.js'
import { keyTensor, seedKey } from '../lib/privacy/keys.js'

/**
 * What noise costs: the fused update of 4,194,304 parameters with noise and without.
 *
 *     node --import tsx benchmarks/noise.ts [THREADS]
 *
 * Prints a line of JSON: nanoseconds per parameter, median of 20 updates each, taking turns.
 */
const [threads = '2'] = process.argv.slice(2)
const device = Device.open('cpu', { threads: Number(threads) })
const size = 2 ** 22
const optimizer = sgd([new Initializer(device, 1).zeros([size])], { learningRate: 1e-3 })
const key = keyTensor(device, seedKey(1))
const times = { noised: [] as number[], plain: [] as number[] }

for (let step = 0; step < 22; step++) {
  for (const kind of ['noised', 'plain'] as const) {
    const start = performance.now()
    optimizer.update({ step, divisor: 1, ...(kind === 'noised' && { noise: { key, deviation: 1 } }) })
    await device.synchronize()
    if (step >= 2) times[kind].push(performance.now() - start)
  }
}
const perParameter = (all: number[]) => (1e6 * all.sort((a, b) => a - b)[all.length >> 1]!) / size
console.log(
  JSON.stringify({
    what: 'fused update',
    threads: Number(threads),
    parameters: size,
    noisedNs: perParameter(times.noised),
    plainNs: perParameter(times.plain),
  }),
)
device.close()
