import t from 'tap'
import { poolPerUnit } from '../../lib/autograd/embedding.js'
import { Tape } from '../../lib/autograd/tape.js'
import { vocabularyLoss } from '../../lib/autograd/vocabulary-loss.js'
import { packBatch, splitIntoMicroBatches } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import { type CausalBatch, causalBatch } from '../../lib/models/language-batch.js'
import {
  accumulateGradients,
  type LossFunction,
  type MicroBatch,
  sumSink,
  type UnitBatch,
} from '../../lib/nn/accumulate.js'
import { Embedding } from '../../lib/nn/embedding.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { type ForwardContext, Module } from '../../lib/nn/module.js'
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
  /** Full names of what trains; default all. */
  readonly trained?: RegExp
}

async function step<B extends UnitBatch>(
  device: Device,
  module: Module,
  loss: LossFunction<B>,
  parts: readonly MicroBatch<B>[],
  isPrivate: boolean,
): Promise<void> {
  if (isPrivate) {
    const optimizer = sgd(module.parameters(), { learningRate: 1 })
    const options = { optimizer, key: seedKey(1), noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: 1 }
    await new PrivateOptimizer(options).step(0, parts, loss)
  } else {
    await accumulateGradients(device, parts, loss, sumSink, { random: stepRandom(device) })
  }
}

/** An embedding that is frozen, and a head over a large vocabulary. */
class Head extends Module {
  readonly embedding: Embedding
  readonly head: Linear

  constructor(device: Device, vocabularySize: number, hiddenSize: number) {
    super()
    const init = new Initializer(device, 1)
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize })
    this.embedding.freeze()
    this.head = new Linear(init, { inputSize: hiddenSize, outputSize: vocabularySize, bias: false })
    this.nameParameters()
  }

  readonly loss = (batch: CausalBatch, context: ForwardContext) => {
    const terms = this.head.terms(this.embedding.forward(batch.ids, context), context)
    return poolPerUnit(context.tape, vocabularyLoss(context.tape, terms, batch.targets), batch.targetWeights)
  }
}

/** The most bytes that a step held at once beside weights and gradients. */
async function peak(
  name: Architecture,
  units: readonly TokenUnit[],
  { isPrivate, checkpoints = false, maxRows = 1024, trained }: StepKind,
): Promise<number> {
  using device = Device.open('cpu', { threads: 1 })
  const { module, loss, batch } = architecture(device, name)
  module.setActivationCheckpointing(checkpoints)
  for (const [name, parameter] of module.namedParameters()) if (trained && !trained.test(name)) parameter.freeze()
  for (const parameter of module.trainableParameters()) parameter.gradient.fill(0)
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
  await step(device, module, loss, parts, isPrivate)
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

t.test('what layers that are frozen made is freed at once, and so it is in evaluation', async (t) => {
  const units = tokenUnits(lengths(16, 64))
  const whole = await peak('bert', units, { isPrivate: true })
  const head = await peak('bert', units, { isPrivate: true, trained: /^(head|pooler)\./ })
  t.ok(head < 0.4 * whole, `${head / whole} of training all`)
  using device = Device.open('cpu', { threads: 1 })
  const { loss, batch } = architecture(device, 'bert')
  await device.synchronize()
  const { live } = device.memory()
  await device.scope(() => loss(batch(units), { tape: new Tape(device), training: false }).data())
  const evaluation = device.memory().peak - live
  t.ok(evaluation < 0.4 * whole, `evaluation: ${evaluation / whole}`)
})

t.test('scores over a vocabulary are never held whole', async (t) => {
  const [vocabularySize, hiddenSize, rows] = [2 ** 17, 4, 640]
  const whole = 4 * rows * vocabularySize
  for (const isPrivate of [false, true]) {
    for (const count of [5, 40]) {
      using device = Device.open('cpu', { threads: 2 })
      const module = new Head(device, vocabularySize, hiddenSize)
      module.head.weight.gradient.fill(0)
      await device.synchronize()
      const { live } = device.memory()
      await step(
        device,
        module,
        module.loss,
        [() => causalBatch(device, packBatch(tokenUnits(lengths(count, rows / count))))],
        isPrivate,
      )
      const share = (device.memory().peak - live) / whole
      t.ok(share < 0.2, `${isPrivate ? 'private' : 'plain'}, ${count} units: ${share} of the scores`)
    }
  }
})
