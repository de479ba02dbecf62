import t from 'tap'
import { splitIntoMicroBatches } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import { accumulateGradients, sumSink } from '../../lib/nn/accumulate.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { type Architecture, architecture, architectures, type TokenUnit, tokenUnits } from '../support/architectures.js'
import { stepRandom } from '../support/sites.js'

// Bytes of tensors as the engine counts them: the same in every run.

interface StepKind {
  readonly isPrivate: boolean
  readonly checkpoints?: boolean
  readonly maxRows?: number
}

/** The most bytes that a step held at once beside weights and gradients. */
async function peak(
  name: Architecture,
  units: readonly TokenUnit[],
  { isPrivate, checkpoints = false, maxRows = 1024 }: StepKind,
): Promise<number> {
  using device = Device.open('cpu', { threads: 1 })
  const { module, loss, batch } = architecture(device, name)
  module.setActivationCheckpointing(checkpoints)
  for (const parameter of module.trainableParameters()) parameter.gradient.fill(0)
  const random = stepRandom(device)
  await device.synchronize()
  const { live } = device.memory()
  const ranges = splitIntoMicroBatches(
    units.map(({ ids }) => ids.length),
    maxRows,
  )
  const parts = ranges.map(
    ({ start, end }) =>
      () =>
        batch(units.slice(start, end)),
  )
  if (isPrivate) {
    const optimizer = sgd(module.parameters(), { learningRate: 1 })
    const options = { optimizer, key: seedKey(1), noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: 1 }
    await new PrivateOptimizer(options).step(0, parts, loss)
  } else {
    await accumulateGradients(device, parts, loss, sumSink, { random })
  }
  return device.memory().peak - live
}

const lengths = (count: number, length: number) => new Array<number>(count).fill(length)

const shapes = [
  [64, 16],
  [16, 64],
] as const

for (const name of architectures) {
  t.test(`${name}: a private step holds at most 1.5 times what a plain one does`, async (t) => {
    for (const checkpoints of [false, true]) {
      for (const [count, length] of shapes) {
        const units = tokenUnits(lengths(count, length))
        const plain = await peak(name, units, { isPrivate: false, checkpoints })
        const ratio = (await peak(name, units, { isPrivate: true, checkpoints })) / plain
        t.ok(ratio <= 1.5, `${count} x ${length}${checkpoints ? ', checkpoints' : ''}: ${ratio}`)
      }
    }
  })

  t.test(`${name}: checkpoints take less`, async (t) => {
    const units = tokenUnits(lengths(16, 64))
    for (const isPrivate of [false, true]) {
      const ratio =
        (await peak(name, units, { isPrivate, checkpoints: true })) / (await peak(name, units, { isPrivate }))
      t.ok(ratio < 0.8, `${isPrivate ? 'private' : 'plain'}: ${ratio}`)
    }
  })

  t.test(`${name}: the rows of a micro-batch bound the memory of a step, whatever the batch`, async (t) => {
    for (const isPrivate of [false, true]) {
      const of = (count: number) => peak(name, tokenUnits(lengths(count, 16)), { isPrivate, maxRows: 128 })
      t.equal(await of(256), await of(8), isPrivate ? 'private' : 'plain')
    }
  })
}
