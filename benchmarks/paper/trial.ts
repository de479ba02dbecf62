import { join } from 'node:path'
import { adapters, modelSettings } from '../../examples/sst2/settings.js'
import { Device, data, models, nn, optim, PrivacyEngine } from '../../lib/index.js'
import { pretrainedHead } from '../../lib/models/pretrained-text-classifier.js'
import { microBatches } from '../../lib/train/batches.js'
import { encodeTexts } from '../../lib/train/classification-task.js'
import { evaluateClassifier } from '../../lib/train/evaluate.js'
import { holdOut, readSentences, type Sentence } from './held-out.js'

/**
 * A trial of settings for the paper's experiment, on its training data alone.
 *
 *     node --import tsx benchmarks/paper/trial.ts MODEL SST2 [NAME=VALUE...]
 *
 * MODEL is the upcycled MiniLM that run.ts makes (runs/paper/minilm-moe), SST2 a folder with train.tsv. A trial makes `steps`
 * of `batch` examples with the noise per step and coordinate of batches of `noiseOfBatch` at `noiseMultiplier`, so that few
 * examples tell of large batches; every twenty steps it prints the norm of the clipped mean gradient beside that of its noise,
 * and four times the accuracy on 2,000 sentences that were held out, with all their phrases.
 */
const defaults = {
  trainable: adapters.trainable as string,
  targets: adapters.loraTargets.join(),
  layers: '',
  rank: adapters.loraRank as number,
  alpha: adapters.loraAlpha as number,
  learningRate: adapters.learningRate as number,
  headRate: 1,
  weightDecay: 0,
  clipping: 'flat',
  maxGradNorm: adapters.maxGradNorm as number,
  noiseMultiplier: 0.68,
  noiseOfBatch: 2048,
  batch: 256,
  steps: 200,
  threads: 2,
  seed: 1,
}
type Settings = typeof defaults

const [folder, sst2, ...given] = process.argv.slice(2)
if (!folder || !sst2) throw new Error('usage: benchmarks/paper/trial.ts MODEL SST2 [NAME=VALUE...]')
const settings = parse(given)
const device = Device.open('cpu', { threads: settings.threads })
const model = await models.BertClassifier.fromPretrained(device, folder, { ...modelSettings, labels: ['0', '1'] })
chooseParameters()
const { training, heldOut } = holdOut(readSentences(join(sst2, 'train.tsv')), 2000)
const tokenizer = await data.HuggingFaceTokenizer.fromFile(folder)
const [train, held] = [await encode(training), await encode(heldOut)]
const { batch, steps } = settings
const schedule = optim.schedule('cosine', steps, Math.floor(steps / 10))
const { learningRate, weightDecay } = settings
const optimizer = optim.adamW(model.trainableParameters(), { learningRate, schedule, weightDecay })
const made = new PrivacyEngine({ seed: settings.seed }).makePrivate({
  module: model,
  optimizer,
  data: train,
  noiseMultiplier: (settings.noiseMultiplier * batch) / settings.noiseOfBatch,
  maxGradNorm: settings.maxGradNorm,
  clipping: settings.clipping as 'flat' | 'per-layer' | 'automatic',
  expectedBatchSize: batch,
  steps,
})

// The gradient is read as the update begins: the update clears it.
let described: Promise<string> | undefined
const update = optimizer.update.bind(optimizer)
optimizer.update = (one) => {
  described = one.step % 20 === 0 ? describeGradient() : undefined
  update(one)
}
for (let step = 0; step < steps; step++) {
  const parts = microBatches(device, train, made.sampler.sample(step), 8192)
  const seen = await made.step(step, parts, (one, context) => model.loss(one, context))
  if (described !== undefined) {
    console.log(step, `loss ${seen.loss.toFixed(3)}`, `clipped ${seen.clippedFraction.toFixed(2)}`, await described)
  }
  if (((step + 1) * 4) % steps < 4) {
    const { accuracy, loss } = await evaluateClassifier(device, model, held)
    console.log(`after ${step + 1} steps: ${(100 * accuracy).toFixed(2)} %, loss ${loss.toFixed(3)}`)
  }
}

function parse(pairs: readonly string[]): Settings {
  const entries = pairs.map((pair) => {
    const [name, value] = pair.split('=') as [keyof Settings, string]
    if (!(name in defaults)) throw new Error(`${name}: there are ${Object.keys(defaults).join(', ')}`)
    return [name, typeof defaults[name] === 'number' ? Number(value) : value] as const
  })
  return { ...defaults, ...Object.fromEntries(entries) }
}

function chooseParameters(): void {
  const { trainable, rank, alpha, targets, layers, headRate } = settings
  nn.setTrainable(model, trainable as nn.TrainableChoice, new nn.Initializer(device, 'adapters'), {
    head: pretrainedHead,
    rank,
    alpha,
    targets: targets.split(',') as nn.AdapterTarget[],
    layers: layers === '' ? undefined : layers.split(',').map(Number),
  })
  for (const [name, parameter] of model.namedParameters()) {
    if (pretrainedHead.test(name)) parameter.learningRateScale = headRate
  }
}

function encode(sentences: readonly Sentence[]): Promise<data.Dataset> {
  const classes = Int32Array.from(sentences, ({ label }) => label)
  return encodeTexts({ texts: sentences.map(({ text }) => text), classes }, tokenizer, undefined)
}

/** Norm of the clipped gradient and of its noise, of adapters and head apart. */
async function describeGradient(): Promise<string> {
  const parts = await Promise.all(
    model.trainableParameters().map(async (parameter) => {
      const values = await parameter.gradient.data()
      return { head: pretrainedHead.test(parameter.name), values: values as Float32Array }
    }),
  )
  const deviation = made.optimizer.noiseDeviation / batch
  const of = (head: boolean) => {
    const values = parts.filter((part) => part.head === head).flatMap((part) => part.values)
    const square = values.reduce((sum, part) => sum + part.reduce((total, value) => total + value * value, 0), 0)
    const size = values.reduce((sum, part) => sum + part.length, 0)
    return `${(Math.sqrt(square) / batch).toFixed(4)} beside ${(deviation * Math.sqrt(size)).toFixed(4)}`
  }
  return `gradient beside noise: head ${of(true)}, the rest ${of(false)}`
}
