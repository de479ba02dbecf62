import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { TextGenerator } from '../../lib/models/generation/text-generator.js'
import { SafetensorsFile } from '../../lib/models/safetensors.js'
import { readLedger } from '../../lib/privacy/ledger.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { evaluate, Predictor } from '../../lib/train/predict.js'
import { train } from '../../lib/train/train.js'
import { dialogues, modelFolder, writeLines } from './support/language.js'
import { ledgerOf, releasedWeights, tinyRun } from './support/runs.js'

// Both language tasks from files to a release, on tiny random models.

const root = t.testdir({})
const decoder = modelFolder(root, 'decoder', 'mixtral', { max_position_embeddings: 64 })
const encoderDecoder = modelFolder(root, 'switch', 'switch')
const rows = dialogues(120)
const data = writeLines(join(root, 'dialogues.jsonl'), rows)

const tasks = {
  'causal-lm': { model: { pretrained: decoder }, prompt: 'question', completion: 'answer' },
  seq2seq: { model: { pretrained: encoderDecoder }, source: 'question', target: 'answer' },
} as const
type Task = keyof typeof tasks

let runs = 0
const options = (task: Task, more: Partial<TrainOptions> = {}): TrainOptions => ({
  ...tinyRun(data, join(root, `run-${runs++}`), { steps: 6, seed: 1, expectedBatchSize: 30, checkpointEvery: 2 }),
  task,
  ...tasks[task],
  ...more,
})
const certificateOf = ({ output }: TrainOptions) =>
  JSON.parse(readFileSync(join(output, 'release/certificate.json'), 'utf8'))

for (const task of ['causal-lm', 'seq2seq'] as const) {
  const { model: _, ...columns } = tasks[task]

  t.test(`${task}: learns what is easy, and the release generates, is measured and says what it is`, async (t) => {
    const plain = options(task, {
      nonPrivate: true,
      noiseMultiplier: undefined,
      steps: 150,
      learningRate: 1e-2,
      validation: data,
    })
    const before = await evaluate(plain.model!.pretrained as string, { data, threads: 1, maxLength: 64, ...columns })
    const { validation } = await train(plain)
    t.ok(validation!.accuracy > 0.99, `token accuracy ${validation!.accuracy}`)
    t.equal(validation!.perplexity, Math.exp(validation!.loss))
    t.ok(validation!.perplexity! < 1.2 && before.perplexity! > 10)
    t.equal(validation!.examples, rows.length)
    t.strictSame(await evaluate(plain.output, { data, threads: 1, ...columns }), validation, 'eval of the run folder')

    using device = Device.open('cpu', { threads: 1 })
    using generator = await TextGenerator.open(device, join(plain.output, 'release'))
    const asked = rows.slice(0, 12)
    const texts = await generator.generate(
      asked.map(({ question }) => question),
      { maxNewTokens: 10 },
    )
    t.strictSame(
      texts.map((text) => text.trim()),
      asked.map(({ answer }) => answer),
      'answers, and stops',
    )
    await t.rejects(Predictor.open(plain.output), /language model .* gives no classes; .*dp-moe generate/)
  })

  t.test(`${task}: privately, with the certificate of a classifier's run`, async (t) => {
    const run = options(task, { seed: undefined, maxLength: 32, model: { ...tasks[task].model, balanceLoss: 0.01 } })
    const result = await train(run)
    t.match(result, { private: true, steps: 6, examples: 120, delta: 1 / 120 })
    const certificate = certificateOf(run)
    t.match(certificate, {
      unit: 'example',
      relation: 'zero-out',
      steps: 6,
      sampleRate: 0.25,
      seeded: false,
      epsilon: result.epsilon,
      releases: [{ name: 'gradient', weight: 1 }],
      publicConstants: {
        examples: 120,
        task,
        lossOver: `tokens of the ${task === 'seq2seq' ? 'target' : 'completion'}, mean of each example`,
        maxLength: 32,
        tokenizer: { type: 'hugging-face', vocabularySize: 40 },
        model: { modelType: 'pretrained', task, kind: task === 'seq2seq' ? 'switch_transformers' : 'mixtral' },
      },
    })
    t.notOk('labels' in certificate.publicConstants)
    const ledger = await readLedger(ledgerOf(run.output))
    t.equal(
      ledger.segments.flatMap(({ steps }) => steps).reduce((sum, { count }) => sum + count, 0),
      6,
    )
    t.equal(ledger.hash, certificate.ledgerHash)
    const config = JSON.parse(readFileSync(join(run.output, 'release/tokenizer_config.json'), 'utf8'))
    t.equal(config.model_max_length, 32)
  })

  t.test(`${task}: users as units`, async (t) => {
    const run = options(task, { group: 'user', maxExamplesPerUser: 4, expectedBatchSize: 10, validation: 0.2 })
    const result = await train(run)
    t.equal(result.examples, 4 * result.users!)
    t.equal(result.users! + result.validation!.examples / 6, 20)
    t.match(certificateOf(run), { unit: 'user', publicConstants: { users: result.users, maxExamplesPerUser: 4 } })
  })

  t.test(`${task}: goes on after a stop with the same bits, and from the same data only`, async (t) => {
    const trainable = { trainable: 'lora', loraRank: 2 } as const
    const whole = options(task, trainable)
    await train(whole)
    const stop = new AbortController()
    const run = options(task, trainable)
    const stopped = {
      ...run,
      signal: stop.signal,
      onProgress: ({ step }: { step: number }) => step === 3 && stop.abort(),
    }
    await t.rejects(train(stopped as TrainOptions), { code: 'ABORTED' })
    t.notOk(existsSync(join(run.output, 'release')))
    const other = writeLines(join(root, `other-${task}.jsonl`), [...rows.slice(1), { ...rows[0], answer: 'hello' }])
    await t.rejects(train({ ...run, train: other, resume: true }), /training data differs/)
    await train({ ...run, resume: true })
    t.ok(releasedWeights(run.output).equals(releasedWeights(whole.output)), 'bit-equal')
  })
}

t.test('what trains, and adapters released alone', async (t) => {
  for (const task of ['causal-lm', 'seq2seq'] as const) {
    const changed = async (more: Partial<TrainOptions>) => {
      const run = options(task, more)
      await train(run)
      await using before = await SafetensorsFile.open(join(run.model!.pretrained as string, 'model.safetensors'))
      await using after = await SafetensorsFile.open(join(run.output, 'release/model.safetensors'))
      const names: string[] = []
      for (const name of before.tensors.keys()) {
        const [a, b] = [await before.readFloat32(name), await after.readFloat32(name)]
        if (a.some((value, i) => value !== b[i])) names.push(name)
      }
      return names
    }
    const adapted = await changed({ trainable: 'lora', loraRank: 2 })
    t.ok(adapted.length > 8)
    t.strictSame(
      adapted.filter((name) => /norm|embed|shared|lm_head|router|block_sparse_moe\.gate/.test(name)),
      [],
      'attention and experts only',
    )
    t.ok((await changed({})).length > adapted.length)
    if (task === 'causal-lm') t.strictSame(await changed({ trainable: 'head' }), ['lm_head.weight'])

    const lora = { trainable: 'lora', loraRank: 2 } as const
    const upper = await changed({ ...lora, loraLayers: [1] })
    t.ok(upper.length > 0)
    t.strictSame(
      upper,
      adapted.filter((name) => /\.(layers|block)\.1\./.test(name)),
    )

    const whole = options(task, { ...lora, validation: data })
    const alone = options(task, { ...lora, release: 'adapters' })
    const { validation } = await train(whole)
    await train(alone)
    const adapters = { rank: 2, alpha: 16, targets: ['attention', 'experts'] }
    const some = options(task, { ...lora, loraLayers: [1], release: 'adapters' })
    await train(some)
    t.match(certificateOf(some).publicConstants, { adapters: { ...adapters, layers: [1] } })
    t.notOk('layers' in certificateOf(whole).publicConstants.adapters)
    t.match(certificateOf(whole).publicConstants, { adapters })
    t.match(certificateOf(alone).publicConstants, { adapters, release: 'adapters' })
    t.notOk(existsSync(join(alone.output, 'release/model.safetensors')))
    const { model: _, ...columns } = tasks[task]
    const measured = await evaluate(alone.output, { data, threads: 1, ...columns })
    t.ok(Math.abs(measured.perplexity! / validation!.perplexity! - 1) < 1e-6, 'the same model')
    using device = Device.open('cpu', { threads: 1 })
    const texts: string[][] = []
    for (const { output } of [whole, alone]) {
      using generator = await TextGenerator.open(device, join(output, 'release'))
      texts.push(await generator.generate([rows[0]!.question], { maxNewTokens: 5 }))
    }
    t.strictSame(texts[1], texts[0])
  }
})

t.test('a whole text is learnt where no prompt is named', async (t) => {
  const texts = writeLines(
    join(root, 'texts.jsonl'),
    rows.map(({ question, answer }) => ({ text: `${question} ${answer}` })),
  )
  const columns = { train: texts, prompt: undefined, completion: undefined } as unknown as Partial<TrainOptions>
  const run = options('causal-lm', { ...columns, validation: texts })
  const { validation } = await train(run)
  t.match(certificateOf(run).publicConstants, { lossOver: 'tokens of the text, mean of each example' })
  t.equal((await evaluate(run.output, { data: texts, text: 'text', threads: 1 })).perplexity, validation!.perplexity)
})

t.test('a tokenizer of its own, and the longest text, go with the release', async (t) => {
  const { model: _, ...columns } = tasks['causal-lm']
  const tokenizer = join(encoderDecoder, 'tokenizer.json')
  const run = options('causal-lm', { tokenizer, maxLength: 8, validation: data })
  const { validation } = await train(run)
  const measured = await evaluate(run.output, { data, threads: 1, ...columns })
  t.strictSame(measured, validation)
  const longer = await evaluate(run.output, { data, threads: 1, maxLength: 64, ...columns })
  t.ok(longer.tokens! > measured.tokens!)
})

t.test('generation_config.json goes with the release', async (t) => {
  const folder = modelFolder(root, 'ends-elsewhere', 'mixtral', { eos_token_id: 2 })
  writeLines(join(folder, 'generation_config.json'), [{ eos_token_id: [1, 7] }])
  const run = options('causal-lm', { model: { pretrained: folder } })
  await train(run)
  using device = Device.open('cpu', { threads: 1 })
  using generator = await TextGenerator.open(device, join(run.output, 'release'))
  t.strictSame(generator.stopTokens, [1, 7])
})

t.test('examples without a token to predict are units that teach nothing', async (t) => {
  const empty = { question: 'the film '.repeat(20), answer: 'good', user: 'nobody' }
  const file = writeLines(join(root, 'with-empty.jsonl'), [...rows, empty, empty])
  const told: string[] = []
  const run = options('causal-lm', { train: file, maxLength: 16, onMessage: ({ text }) => told.push(text) })
  const result = await train(run)
  t.equal(result.examples, 122)
  t.equal(result.delta, 1 / 122)
  t.match(certificateOf(run), { sampleRate: 30 / 122, publicConstants: { examples: 122 } })
  t.match(told.join('\n'), /2 of 122 examples have no token to predict .* They count as examples and teach nothing/)
  const none = writeLines(join(root, 'only-empty.jsonl'), [empty, empty])
  await t.rejects(train(options('causal-lm', { train: none, maxLength: 16 })), {
    code: 'DATA_FORMAT',
    message: /only-empty\.jsonl: no example has a token to predict/,
  })
  await t.rejects(evaluate(decoder, { data: none, prompt: 'question', completion: 'answer', maxLength: 16 }), {
    code: 'DATA_FORMAT',
  })
})

t.test('what is refused', async (t) => {
  const refused = (task: Task, more: Partial<TrainOptions>, message: RegExp) =>
    t.test(String(message), (t) => t.rejects(train(options(task, more)), { message }))
  await refused('causal-lm', { task: 'summarisation' as Task }, /task: expected classification, causal-lm, seq2seq/)
  await refused('causal-lm', { model: {} }, /model: causal-lm starts from a pretrained model/)
  await refused(
    'causal-lm',
    { model: { pretrained: encoderDecoder } },
    /expected mixtral, olmoe, qwen3_moe for the task causal-lm, got 'switch_transformers'/,
  )
  await refused(
    'seq2seq',
    { model: { pretrained: decoder } },
    /expected switch_transformers for the task seq2seq, got 'mixtral'/,
  )
  await refused(
    'causal-lm',
    { completion: 'reply' },
    /:1: there is no column 'reply'; the columns are 'question', 'answer', 'user'/,
  )
  await refused('seq2seq', { target: 'summary' }, /:1: there is no column 'summary'/)
  await refused('seq2seq', { text: 'question' }, /text: not for seq2seq, which reads source, target/)
  await refused('causal-lm', { label: 'answer' }, /label: not for causal-lm, which reads text, prompt, completion/)
  await refused('causal-lm', { text: 'question' }, /either text, or prompt and completion, got both/)
  await refused('causal-lm', { labels: ['a', 'b'] }, /labels: not for causal-lm/)
  await refused('causal-lm', { maxLength: 65 }, /at most 64, the model's positions for maxLength, got 65/)
  await refused('causal-lm', { model: { pretrained: decoder, dropout: 0.1 } }, /dropout is not offered for causal-lm/)
  await refused(
    'seq2seq',
    { model: { pretrained: encoderDecoder, releaseLoad: true } },
    /releaseLoad is not offered for seq2seq/,
  )
  const odd = modelFolder(root, 'odd-end', 'mixtral', { eos_token_id: 40 })
  await refused(
    'causal-lm',
    { model: { pretrained: odd } },
    /eos_token_id: expected tokens below the vocabulary's 40, got 40/,
  )
  await refused('seq2seq', { trainable: 'head' }, /the head of this model is its embedding table; choose lora or all/)
  await refused('causal-lm', { trainable: 'bias' }, /something to train under 'bias', and every parameter is frozen/)
  const numbers = writeLines(join(root, 'numbers.jsonl'), [{ question: 'a', answer: 3 }])
  await refused('causal-lm', { train: numbers }, /:1: 'answer' is a number. Texts must be strings/)
  await t.rejects(evaluate(decoder, { data, label: 'answer' }), /label: not for causal-lm/)
  await t.rejects(
    evaluate(decoder, { data, prompt: 'question', completion: 'answer', maxLength: 65 }),
    /an integer from 1 to 64/,
  )
})
