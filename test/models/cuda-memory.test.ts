// Scores in parts and layers computed again, on an emulated CUDA device.
import t from 'tap'
import { Tape, type TapeOptions } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { type Architecture, architecture, type TokenUnit, tokenUnits } from '../support/architectures.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'
import { stepRandom } from '../support/sites.js'

const emulated = new EmulatedCuda()
t.teardown(() => emulated.remove())
t.setTimeout(280_000)

const units = tokenUnits([5, 12, 3])

/** Squared norms of all units and the clipped sum by parameter. */
async function clippedSum(
  device: Device,
  name: Architecture,
  batch: readonly TokenUnit[],
  options: TapeOptions & { checkpoints?: boolean },
) {
  const { module, loss, batch: make } = architecture(device, name)
  module.setActivationCheckpointing(options.checkpoints)
  const clipping = clippingGroups('flat', 0.3, module.parameters())
  const norms = device.scope(() => {
    const statistics = device.zeros([clipping.groups.length, 3], { dtype: 'float64' })
    const sink = new ClippedSumSink(device, clipping, batch.length, statistics)
    const tape = new Tape(device, sink, { releases: true, ...options })
    tape.backward(loss(make(batch), { tape, training: true, random: stepRandom(device) }))
    const squared = sink.squaredNorms().data()
    sink.finish()
    return squared
  })
  const sums: (readonly [string, Float32Array])[] = []
  for (const [parameterName, parameter] of module.namedParameters()) {
    if (parameter.trainable) sums.push([parameterName, (await parameter.gradient.data()) as Float32Array])
  }
  const values = await norms
  module[Symbol.dispose]()
  return { norms: [...values].map(Number), sums }
}

type Sums = Awaited<ReturnType<typeof clippedSum>>

/** The largest difference of two sums, and of two norms relative to themselves. */
function differences(a: Sums, b: Sums): { sums: number; norms: number } {
  const sums = a.sums.flatMap(([, values], i) => [...values].map((value, j) => Math.abs(value - b.sums[i]![1][j]!)))
  const norms = a.norms.map((norm, i) => Math.abs(norm - b.norms[i]!) / norm)
  return { sums: Math.max(...sums), norms: Math.max(...norms) }
}

for (const name of ['tied decoder', 'switch transformer'] as const) {
  t.test(`${name}: scores in parts, and layers computed again`, async (t) => {
    using cpu = Device.open('cpu', { threads: 1 })
    const expected = await clippedSum(cpu, name, units, {})
    for (const precision of ['float32', 'bfloat16'] as const) {
      emulated.use()
      using device = Device.open('cuda', { precision })
      const whole = await clippedSum(device, name, units, {})
      if (precision === 'float32') {
        const { sums, norms } = differences(whole, expected)
        t.ok(sums < 1e-4 && norms < 1e-4, `the CPU's, but for rounding: ${sums}, ${norms}`)
      }
      const parts = await clippedSum(device, name, units, { scoreRows: 4 })
      const { sums, norms } = differences(parts, whole)
      t.ok(sums < 1e-4 && norms < 3e-3, `${precision}, parts: ${sums}, ${norms}`)
      t.strictSame(await clippedSum(device, name, units, { scoreRows: 4, checkpoints: true }), parts, 'bit for bit')
      const alone = await clippedSum(device, name, [units[1]!], { scoreRows: 4, checkpoints: true })
      t.equal(alone.norms[0], parts.norms[1], 'the norm of a unit alone')
    }
  })
}
