import { cpSync, existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { upcycle } from '../../lib/models/upcycle.js'
import { Initializer } from '../../lib/nn/initializer.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { Predictor } from '../../lib/train/predict.js'
import { train } from '../../lib/train/train.js'
import { trainableBert } from '../support/bert.js'
import { releasedWeights, tinyRun } from './support/runs.js'

const root = t.testdir()
const wordPiece = JSON.parse(
  readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'),
).tokenizer
const folder = join(root, 'bert')
const mixtureFolder = join(root, 'bert-moe')
const vocabularySize = Math.max(...(Object.values(wordPiece.model.vocab) as number[])) + 1

{
  using device = Device.open('cpu', { threads: 1 })
  const dense = new BertClassifier(new Initializer(device, 1), trainableBert(vocabularySize))
  await dense.savePretrained(folder)
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(wordPiece))
  const sparse = await upcycle(device, folder, { numExperts: 4 })
  await sparse.savePretrained(mixtureFolder)
  cpSync(join(folder, 'tokenizer.json'), join(mixtureFolder, 'tokenizer.json'))
}

const data = join(root, 'reviews.jsonl')
const texts = { good: 'hello world the film is good', bad: 'the world is not a good film' }
writeFileSync(
  data,
  Array.from({ length: 120 }, (_, i) => {
    const label = i % 2 === 0 ? 'good' : 'bad'
    return `${JSON.stringify({ text: `${texts[label]} ${'the '.repeat(i % 5)}`, label })}\n`
  }).join(''),
)

let runs = 0
const options = (more: Partial<TrainOptions> = {}): TrainOptions => ({
  ...tinyRun(data, join(root, `run-${runs++}`), { steps: 6, seed: 1, expectedBatchSize: 30, checkpointEvery: 2 }),
  model: { pretrained: folder },
  ...more,
})

const certificateOf = ({ output }: TrainOptions) =>
  JSON.parse(readFileSync(join(output, 'release/certificate.json'), 'utf8'))

t.test('trains a pretrained encoder, and writes one', async (t) => {
  const plain = options({
    nonPrivate: true,
    noiseMultiplier: undefined,
    steps: 60,
    learningRate: 5e-3,
    validation: data,
  })
  const result = await train(plain)
  t.equal(result.validation!.accuracy, 1, 'learns what is easy')
  using predictor = await Predictor.open(plain.output)
  t.same(predictor.labels, ['bad', 'good'])
  const predictions = await predictor.predict([texts.good, texts.bad, ''])
  t.same(
    predictions.slice(0, 2).map(({ label }) => label),
    ['good', 'bad'],
  )
  const config = JSON.parse(readFileSync(join(plain.output, 'release/config.json'), 'utf8'))
  t.match(config, { model_type: 'bert', id2label: { 0: 'bad', 1: 'good' } })
  const mean = options({ model: { pretrained: folder, pooling: 'mean' } })
  await train(mean)
  t.match(JSON.parse(readFileSync(join(mean.output, 'release/config.json'), 'utf8')), { classifier_pooling: 'mean' })
})

t.test('privately, from what is stated', async (t) => {
  const run = options({ model: { pretrained: mixtureFolder, releaseLoad: true, trainRouter: true }, maxLength: 20 })
  await train(run)
  const certificate = certificateOf(run)
  t.match(certificate, {
    publicConstants: {
      maxLength: 20,
      tokenizer: { type: 'hugging-face', vocabularySize },
      model: { modelType: 'pretrained', kind: 'bert_moe', numExperts: 4 },
    },
    releases: [{ name: 'gradient' }, { name: 'expert load' }],
  })
  t.match(certificate.publicConstants.startsFrom, { releaseLoad: true, trainRouter: true })
  t.notMatch(JSON.stringify(certificate), mixtureFolder, 'the hash of the weights, and not the path of their folder')
  t.match(certificate.publicConstants.startsFrom.weights, /^[0-9a-f]{64}$/)
  t.equal(certificate.publicConstants.trainable, 'all')
  t.ok(certificate.notCovered.some((sentence: string) => /what it was trained on before/.test(sentence)))
  using predictor = await Predictor.open(run.output)
  const [long, cut] = await predictor.predict([`${texts.good} `.repeat(9), `${texts.good} `.repeat(8)])
  t.same(long, cut, 'the longest text is that of training')
  const again = options({ model: run.model!, maxLength: 20 })
  await train(again)
  t.ok(releasedWeights(again.output).equals(releasedWeights(run.output)), 'seeded: the same weights')
})

t.test('which parameters train', async (t) => {
  const before = readFileSync(join(folder, 'model.safetensors'))
  const size = before.readUInt32LE(0)
  const header = JSON.parse(before.subarray(8, 8 + size).toString())
  const tensorOf = (bytes: Buffer, name: string) => {
    const length = bytes.readUInt32LE(0)
    const { data_offsets: offsets } = JSON.parse(bytes.subarray(8, 8 + length).toString())[name]
    return bytes.subarray(8 + length + offsets[0], 8 + length + offsets[1])
  }
  const changedBy = async (more: Partial<TrainOptions>) => {
    const run = options(more)
    await train(run)
    const after = releasedWeights(run.output)
    const names = Object.keys(header).filter(
      (name) => name !== '__metadata__' && !/^(classifier|bert\.pooler)/.test(name),
    )
    return names.filter((name) => !tensorOf(after, name).equals(tensorOf(before, name)))
  }
  t.same(await changedBy({ trainable: 'head' }), [])
  const biases = await changedBy({ trainable: 'bias' })
  t.ok(biases.length > 10 && biases.every((name) => name.endsWith('bias')))
  const adapted = await changedBy({ trainable: 'lora', loraRank: 2 })
  t.ok(adapted.includes('bert.encoder.layer.0.attention.self.query.weight'))
  t.ok(adapted.includes('bert.encoder.layer.1.output.dense.weight'))
  t.notOk(
    adapted.some((name) => /bias|LayerNorm|embeddings/.test(name)),
    'merged into the matrices, and nothing else',
  )
  const upper = await changedBy({ trainable: 'lora', loraRank: 2, loraLayers: [1] })
  t.same(
    upper,
    adapted.filter((name) => name.startsWith('bert.encoder.layer.1.')),
    'of one layer',
  )
  t.ok((await changedBy({})).length > adapted.length)
})

t.test('resumes from the same model only', async (t) => {
  const moved = join(root, 'moved')
  cpSync(folder, moved, { recursive: true })
  const whole = options({ model: { pretrained: moved }, trainable: 'lora' })
  await train(whole)
  const stop = new AbortController()
  const { signal, ...run } = { ...options({ model: { pretrained: moved }, trainable: 'lora' }), signal: stop.signal }
  await t.rejects(train({ ...run, signal, onProgress: ({ step }) => step === 3 && stop.abort() }), { code: 'ABORTED' })
  await t.rejects(train({ ...run, resume: true, trainable: 'bias' }), /configuration differs/)
  await t.rejects(train({ ...run, resume: true, loraLayers: [1] }), /configuration differs/)
  const weights = readFileSync(join(moved, 'model.safetensors'))
  writeFileSync(join(moved, 'model.safetensors'), Buffer.concat([weights.subarray(0, -4), Buffer.alloc(4)]))
  await t.rejects(train({ ...run, resume: true }), { code: 'INVALID_ARGUMENT', message: /configuration differs/ })
  cpSync(join(folder, 'model.safetensors'), join(moved, 'model.safetensors'))
  await train({ ...run, resume: true })
  t.ok(releasedWeights(run.output).equals(releasedWeights(whole.output)), 'bit-equal')
})

t.test('a run does not write over the model it starts from', async (t) => {
  const run = options({})
  await train(run)
  const release = join(run.output, 'release')
  const again = { ...run, overwrite: true, model: { pretrained: release } }
  await t.rejects(train(again), { code: 'INVALID_ARGUMENT', message: /The model .*release is in the run folder/ })
  t.ok(existsSync(join(release, 'model.safetensors')))
})

t.test('what is refused', async (t) => {
  const refused = (more: Partial<TrainOptions>, message: RegExp) => t.rejects(train(options(more)), { message })
  await refused(
    { model: { pretrained: join(root, 'nowhere') } },
    /There is no folder .*nowhere\..*google\/switch-base-8/,
  )
  await refused(
    { model: { pretrained: folder, numExperts: 4 } },
    /model: there is no 'numExperts'; there are balanceLoss/,
  )
  await refused({ maxLength: 33 }, /at most 32, the model's positions for maxLength, got 33/)
  await refused({ trainable: 'lora', loraRank: 99 }, /rank/)
  await refused({ loraRank: 4 }, /loraRank: expected trainable 'lora' with it, got none/)
  await refused({ trainable: 'lora', loraLayers: [7] }, /layers: expected numbers of layers .*got 7 \(--lora-layers\)/)
  await refused({ trainable: 'lora', loraLayers: [undefined as never, 1] }, /layers: expected a list .*"undefined"/)
  await refused({ trainable: 'biases' as 'bias' }, /trainable: expected all, head, bias, lora, got 'biases'/)
  await refused({ trainable: 'lora', release: 'adapter' as 'adapters' }, /release: expected merged, adapters, got/)
  await refused({ trainable: 'bias', loraTargets: ['router'] }, /loraTargets: expected trainable 'lora' .*got 'bias'/)
  await refused(
    { trainable: 'lora', loraTargets: ['router'], model: { pretrained: folder, trainRouter: false } },
    /trainRouter=false freezes what loraTargets 'router' trains/,
  )
  const bagOfWords = { vocabularySize: 512, hiddenSize: 8, numExperts: 4 }
  await refused({ trainable: 'head', model: bagOfWords }, /something to train/)
  const foreign = join(root, 'foreign')
  cpSync(folder, foreign, { recursive: true })
  writeFileSync(join(foreign, 'config.json'), '{"model_type":"gpt2"}')
  await refused({ model: { pretrained: foreign } }, /model_type: expected bert, bert_moe, switch_transformers .*'gpt2'/)
})
