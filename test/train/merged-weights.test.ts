import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Initializer } from '../../lib/nn/initializer.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { trainableBert } from '../support/bert.js'
import { dialogues, modelFolder, writeLines } from './support/language.js'
import { tinyRun } from './support/runs.js'

const root = t.testdir()
const { tokenizer } = JSON.parse(readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'))
const folder = join(root, 'bert')
{
  using device = Device.open('cpu', { threads: 1 })
  const vocabularySize = Math.max(...(Object.values(tokenizer.model.vocab) as number[])) + 1
  using model = new BertClassifier(new Initializer(device, 1), trainableBert(vocabularySize))
  await model.savePretrained(folder)
  writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
}
const data = join(root, 'reviews.jsonl')
const lines = Array.from({ length: 80 }, (_, i) =>
  JSON.stringify({ text: 'the film is good', label: i % 2 ? 'a' : 'b' }),
)
writeFileSync(data, lines.join('\n'))

const language = {
  task: 'causal-lm',
  train: writeLines(join(root, 'dialogues.jsonl'), dialogues(60)),
  model: { pretrained: modelFolder(root, 'decoder', 'mixtral', { max_position_embeddings: 64 }) },
  prompt: 'question',
  completion: 'answer',
} as const

const lora = (output: string, more: Partial<TrainOptions>): TrainOptions => ({
  ...tinyRun(data, join(root, output), { steps: 2, seed: 1, expectedBatchSize: 30 }),
  model: { pretrained: folder },
  trainable: 'lora',
  loraRank: 2,
  ...more,
})

t.test('adapters that make weights infinite once they are merged: nothing is released', async (t) => {
  for (const release of ['merged', 'adapters'] as const) {
    for (const [task, more] of [
      ['classification', {}],
      ['causal-lm', language],
    ] as const) {
      const options = lora(`${task}-${release}`, { loraAlpha: 6e38, learningRate: 100, release, ...more })
      const message = /not finite once the adapters are in them \(.*weight\).*diverged.*--lora-alpha/
      await t.rejects(train(options), { code: 'INVALID_ARGUMENT', message }, release)
      t.notOk(existsSync(join(options.output, 'release')))
    }
  }
})

t.test('an alpha that float32 does not hold: refused before there is a run', async (t) => {
  for (const loraAlpha of [1e300, 1e39, 1e-300, 0, -1, Number.NaN]) {
    const options = lora('refused', { loraAlpha })
    await t.rejects(train(options), { code: 'INVALID_ARGUMENT', message: /alpha/i }, String(loraAlpha))
    t.notOk(existsSync(options.output))
  }
})
