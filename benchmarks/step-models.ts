import { Device } from '../lib/engine/index.js'
import { matrixSpeed } from './matrix-speed.js'
import { cases, microBatchesOf, stepOf, subjects, unitsOf } from './subjects.js'

/**
 * Times training steps of the models that people fine-tune, plain and private in turns.
 *
 *     node --import tsx benchmarks/step-models.ts [THREADS [SECONDS [CASE...]]]
 *
 * Prints a line of JSON for each case and mode: median and minimum step time in ms, and the minimum as a multiple of
 * `flopLimitMs`, the time that the operations of a step take at the speed of a large matrix product.
 */
const [threads = '2', seconds = '20', ...wanted] = process.argv.slice(2)
const modes = ['plain', 'private'] as const

for (const name of wanted.length > 0 ? wanted : Object.keys(cases)) await measure(name)

async function measure(name: string): Promise<void> {
  const chosen = cases[name]!
  using device = Device.open('cpu', { threads: Number(threads) })
  const subject = subjects[chosen.model](device)
  const units = unitsOf(chosen)
  const microBatches = microBatchesOf(subject, units, chosen.maxTokens)
  const stepIn = (mode: (typeof modes)[number]) => stepOf(mode, device, subject, microBatches, units.length)
  const steps = { plain: stepIn('plain'), private: stepIn('private') }
  const times: Record<(typeof modes)[number], number[]> = { plain: [], private: [] }
  let speed = 0
  const end = performance.now() + 1000 * Number(seconds)
  for (let index = 0; index < 4 || performance.now() < end; index++) {
    speed = Math.max(speed, await matrixSpeed(device))
    for (const mode of modes) {
      const start = performance.now()
      await steps[mode](index)
      if (index >= 1) times[mode].push(performance.now() - start)
    }
  }
  const gigaflops = (units.length * subject.flops(chosen.length)) / 1e9
  const flopLimitMs = (1000 * gigaflops) / speed
  const least = (mode: (typeof modes)[number]) => Math.min(...times[mode])
  for (const mode of modes) {
    const sorted = times[mode].sort((a, b) => a - b)
    console.log(
      JSON.stringify({
        what: 'time of a step',
        case: name,
        mode,
        threads: Number(threads),
        instructionSet: device.info.instructionSet,
        steps: sorted.length,
        medianMs: sorted[sorted.length >> 1],
        minMs: sorted[0],
        gigaflops,
        flopLimitMs,
        ofFlopLimit: least(mode) / flopLimitMs,
        ofPlain: least(mode) / least('plain'),
      }),
    )
  }
}
