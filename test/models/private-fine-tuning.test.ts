import { fileURLToPath } from 'node:url'
import t, { type Test } from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { Dataset } from '../../lib/data/dataset.js'
import type { PackedBatch } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { causalBatch, seq2seqBatch } from '../../lib/models/language-batch.js'
import { modelFromPretrained, type PretrainedTasks } from '../../lib/models/model-from-pretrained.js'
import { textBatch } from '../../lib/models/text-batch.js'
import type { UnitBatch } from '../../lib/nn/accumulate.js'
import type { ForwardContext } from '../../lib/nn/module.js'
import { adamW } from '../../lib/optim/adam.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { readWeights } from '../support/weights.js'

// As docs/pretrained.md has it: read a model, train it privately, save it.

const fixtures = fileURLToPath(new URL('../parity/fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())

/** Sixteen units of three to six tokens. */
const offsets = Int32Array.from({ length: 17 }, (_, unit) => 3 * unit + Math.floor(unit / 2))
const set = new Dataset({
  ids: Int32Array.from({ length: offsets[16]! }, (_, row) => 2 + ((row * 7) % 30)),
  offsets,
  labels: Int32Array.from({ length: 16 }, (_, unit) => unit % 2),
})

interface Task<B extends UnitBatch> {
  readonly model: PretrainedTasks[keyof PretrainedTasks]
  batch(packed: PackedBatch, units: Int32Array): B
  loss(batch: B, context: ForwardContext): Tensor
  logits(batch: B, context: ForwardContext): Tensor
}

async function finetune<B extends UnitBatch>(t: Test, { model, batch, loss, logits }: Task<B>): Promise<void> {
  const engine = new PrivacyEngine({ seed: 1 })
  const options = { noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: 8, steps: 2 }
  const optimizer = adamW(model.parameters(), { learningRate: 1e-2 })
  const training = engine.makePrivate({ module: model, optimizer, data: set, ...options })
  const before = await readWeights(model)
  for (let step = 0; step < training.steps; step++) {
    const units = training.sampler.sample(step)
    await training.step(step, [() => batch(set.batch(units), units)], loss)
  }
  const after = await readWeights(model)
  const still = [...before].filter(([name, values]) => values.every((value, i) => value === after.get(name)![i]))
  t.strictSame(still, [], 'every parameter moved')

  const folder = t.testdir({})
  await model.savePretrained(folder)
  const all = Int32Array.from({ length: 16 }, (_, unit) => unit)
  const scores = (run: Task<B>['logits']) =>
    device.scope(() => run(batch(set.batch(all), all), { tape: new Tape(device), training: false })).data()
  const trained = await scores(logits)
  const task = 'decoder' in model ? 'seq2seq' : 'layers' in model ? 'causal-lm' : 'classification'
  const again = await modelFromPretrained(device, folder, task, { balanceLoss: 0.01 })
  const read = await scores((one, context) => again.logits(one as never, context))
  t.ok(
    read.every((value, i) => value === trained[i]),
    'what was saved computes the same',
  )
}

t.test('BERT for classes', async (t) => {
  const model = await modelFromPretrained(device, `${fixtures}bert`, 'classification')
  await finetune(t, {
    model,
    batch: (packed, units) => textBatch(device, packed, set.labelsOf(units)),
    loss: (batch, context) => model.loss(batch, context),
    logits: (batch, context) => model.logits(batch, context),
  })
})

t.test('the encoder of a Switch Transformer for classes', async (t) => {
  const model = await modelFromPretrained(device, `${fixtures}switch`, 'classification', { labels: ['no', 'yes'] })
  await finetune(t, {
    model,
    batch: (packed, units) => textBatch(device, packed, set.labelsOf(units)),
    loss: (batch, context) => model.loss(batch, context),
    logits: (batch, context) => model.logits(batch, context),
  })
})

for (const name of ['mixtral', 'olmoe-clip-norm', 'qwen3-moe-dense-tied']) {
  t.test(`${name} as a language model`, async (t) => {
    const model = await modelFromPretrained(device, `${fixtures}${name}`, 'causal-lm', { balanceLoss: 0.01 })
    await finetune(t, {
      model,
      batch: (packed) => causalBatch(device, packed),
      loss: (batch, context) => model.loss(batch, context),
      logits: (batch, context) => model.logits(batch, context),
    })
  })
}

t.test('a Switch Transformer from sequence to sequence', async (t) => {
  const model = await modelFromPretrained(device, `${fixtures}switch-capacity-untied`, 'seq2seq')
  await finetune(t, {
    model,
    batch: (packed) => seq2seqBatch(device, packed, packed, model.config.decoderStartToken),
    loss: (batch, context) => model.loss(batch, context),
    logits: (batch, context) => model.logits(batch, context),
  })
})
