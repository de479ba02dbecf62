import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Initializer } from '../../lib/nn/initializer.js'
import type { TrainMessage } from '../../lib/train/options.js'
import { Predictor } from '../../lib/train/predict.js'
import { train } from '../../lib/train/train.js'
import { trainableBert } from '../support/bert.js'
import { tinyRun } from './support/runs.js'

const root = t.testdir()
const { tokenizer } = JSON.parse(readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'))
const data = join(root, 'reviews.jsonl')
const lines = Array.from({ length: 80 }, (_, i) =>
  JSON.stringify({ text: 'the film is good', label: i % 2 ? 'a' : 'b' }),
)
writeFileSync(data, lines.join('\n'))

t.test('a classifier of other classes is fine-tuned with a new head, which is said', async (t) => {
  for (const [labels, warnings] of [
    [['x', 'y', 'z'], 1],
    [['x', 'y'], 0],
  ] as const) {
    const folder = join(root, `of-${labels.length}`)
    {
      using device = Device.open('cpu', { threads: 1 })
      const vocabularySize = Math.max(...(Object.values(tokenizer.model.vocab) as number[])) + 1
      using model = new BertClassifier(new Initializer(device, 1), { ...trainableBert(vocabularySize), labels })
      await model.savePretrained(folder)
      writeFileSync(join(folder, 'tokenizer.json'), JSON.stringify(tokenizer))
    }
    const output = join(root, `run-${labels.length}`)
    const messages: TrainMessage[] = []
    await train({
      ...tinyRun(data, output, { steps: 2, seed: 1, expectedBatchSize: 30 }),
      model: { pretrained: folder },
      onMessage: (message) => messages.push(message),
    })
    const said = messages.filter(({ text }) => /head of .*of-3 is for 3 classes, the data have 2/.test(text))
    t.match(
      said,
      Array.from({ length: warnings }, () => ({ level: 'warning' })),
    )
    t.equal(said.length, warnings)
    using predictor = await Predictor.open(output, { threads: 1 })
    t.same(predictor.labels, ['a', 'b'])
  }
})
