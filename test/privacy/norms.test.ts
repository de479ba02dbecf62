import t from 'tap'
import { add } from '../../lib/autograd/elementwise.js'
import { poolPerUnit } from '../../lib/autograd/embedding.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { MixtureClassifier } from '../../lib/models/mixture-classifier.js'
import type { TextBatch } from '../../lib/models/text-batch.js'
import { Embedding } from '../../lib/nn/embedding.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { type ForwardContext, Module } from '../../lib/nn/module.js'
import { LayerNorm } from '../../lib/nn/norms.js'
import { compareNorms } from '../support/brute-force-norms.js'
import { type FeatureExample, FeatureModel, featureBatch, featureSize } from '../support/feature-model.js'
import { batchOf, type Example, examples, tinyConfig, tinyModel } from '../support/models.js'
import type { Subject } from '../support/sites.js'
import { perturb, TokenModel, type TokenModelConfig } from '../support/token-model.js'
import { uniforms } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const tokens = (
  module: Module & { loss(batch: TextBatch, context: ForwardContext): Tensor },
): Subject<Example, TextBatch> => ({
  device,
  module,
  loss: module.loss.bind(module),
  batch: (units) => batchOf(device, units),
})

/** Eight texts: one row, 512 rows, none, one token again and again, and some between. */
function eightTexts(vocabularySize = tinyConfig.vocabularySize): Example[] {
  const texts = examples([5, 1, 512, 0, 33, 64, 2, 17], { ...tinyConfig, vocabularySize }, 11)
  return texts.with(5, { unit: 5, ids: new Array<number>(64).fill(4), label: 1 })
}

const variants: Record<string, TokenModelConfig> = {
  'top-1, layer norm': {},
  'top-2, RMS norm, causal': { norm: 'rms', causal: true, mixture: { expertsPerToken: 2, normalizeGates: true } },
  'tied head': { tied: true, causal: true },
  'tied head, repeated keys and values': { tied: true, keyValueHeads: 1, mixture: { expertsPerToken: 2 } },
  'gated experts': { norm: 'rms', mixture: { gated: true, expertsPerToken: 2 } },
  'gated experts with biases': { mixture: { gated: true, bias: true } },
  'capacity per unit': { mixture: { capacityPerSequence: 2, expertsPerToken: 2 } },
  'router bias, both router losses': { mixture: { routerBias: true, balanceLoss: 1, zLoss: 0.1 } },
  'dropout and jitter': { dropout: 0.3, mixture: { routerJitter: 0.2, expertsPerToken: 2, zLoss: 0.01 } },
  gelu: { mixture: { activation: 'gelu' } },
  'every expert': { mixture: { expertsPerToken: 4, activation: 'silu' } },
  'one expert': { mixture: { numExperts: 1 } },
  wide: { hiddenSize: 48, vocabularySize: 301, mixture: { intermediateSize: 80, numExperts: 3 } },
}

for (const [name, config] of Object.entries(variants)) {
  t.test(`norms of each parameter: ${name}`, async (t) => {
    await compareNorms(t, tokens(new TokenModel(device, config)), eightTexts(config.vocabularySize), name)
  })
}

t.test('norms of the classifiers', async (t) => {
  const short = eightTexts().with(2, examples([64])[0]!)
  await compareNorms(t, tokens(tinyModel(device, { dropout: 0.2, expertsPerToken: 2 })), short, 'switch')
  const mixture = new MixtureClassifier(new Initializer(device, 3), { ...tinyConfig, expertsPerToken: 2 })
  perturb(device, mixture, 0.3)
  await compareNorms(t, tokens(mixture), eightTexts(), 'mixture')
})

/** A table, a projection and a norm used twice each, and the table once more as the head. */
class Reuse extends Module {
  readonly table: Embedding
  readonly middle: Linear
  readonly norm: LayerNorm
  readonly head: Linear

  constructor() {
    super()
    const init = new Initializer(device, 5)
    this.table = new Embedding(init, { vocabularySize: 64, hiddenSize: 10, deviation: 1 })
    this.middle = new Linear(init, { inputSize: 10, outputSize: 10 })
    this.norm = new LayerNorm(init, 10)
    this.head = new Linear(init, { inputSize: 10, outputSize: 3 })
    this.nameParameters()
    perturb(device, this, 0.2)
  }

  loss(batch: TextBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const x = add(tape, this.table.forward(batch.ids, context), this.table.forward(batch.positions, context))
    const once = this.norm.forward(this.middle.forward(x, context), context)
    const twice = this.norm.forward(this.middle.forward(once, context, { activation: 'gelu' }), context)
    return crossEntropy(tape, this.head.forward(poolPerUnit(tape, twice), context), batch.labels)
  }
}

t.test('a parameter used twice has the norm of the sum of its uses', async (t) => {
  await compareNorms(t, tokens(new Reuse()), eightTexts().with(2, examples([64])[0]!), 'reuse')
})

t.test('rows far from zero, whose products nearly cancel', async (t) => {
  const next = uniforms(6)
  const subject: Subject<FeatureExample, ReturnType<typeof featureBatch>> = {
    device,
    module: new FeatureModel(device),
    loss: (batch, context) => (subject.module as FeatureModel).loss(batch, context),
    batch: (units) => featureBatch(device, units),
  }
  const units = [1, 2, 40, 200, 0, 512, 7, 90].map((length, unit) => ({
    unit,
    rows: Array.from({ length }, () => Array.from({ length: featureSize }, () => 300 + next())),
    label: unit % 2,
  }))
  await compareNorms(t, subject, units, 'mean 300 deviations')
})
