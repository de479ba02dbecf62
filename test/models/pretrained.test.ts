import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { WordHashTokenizer } from '../../lib/data/index.js'
import { Device } from '../../lib/engine/device.js'
import { fromPretrained, savePretrained } from '../../lib/models/pretrained.js'
import { type ClassifierConfig, createClassifier, parseClassifierConfig } from '../../lib/models/text-classifier.js'

const root = t.testdir()
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device.close())

const mixture = { modelType: 'mixture-classifier', vocabularySize: 64, numLabels: 2, hiddenSize: 4, numExperts: 3 }
const encoder = {
  ...mixture,
  modelType: 'switch-classifier',
  numLayers: 2,
  numAttentionHeads: 2,
  intermediateSize: 8,
  maxPositions: 16,
}

async function saved(name: string, value: unknown): Promise<string> {
  const config: ClassifierConfig = parseClassifierConfig(value, name)
  const tokenizer = new WordHashTokenizer({ vocabularySize: 64, ngrams: 1, maxLength: 16 })
  const folder = join(root, name)
  const model = createClassifier(device, config)
  await savePretrained(folder, { model, config, labels: ['a', 'b'], tokenizer, bag: undefined })
  return folder
}

t.test('a configuration that does not fit the weights is refused at once, whatever size it states', async (t) => {
  for (const [name, good, changes] of [
    ['mixture', mixture, ['vocabularySize', 'hiddenSize', 'numExperts']],
    [
      'encoder',
      encoder,
      ['vocabularySize', 'hiddenSize', 'numExperts', 'numLayers', 'intermediateSize', 'maxPositions'],
    ],
  ] as const) {
    const folder = await saved(name, good)
    const { model } = await fromPretrained(device, folder)
    model[Symbol.dispose]()
    const bad = join(root, `${name}-bad`)
    cpSync(folder, bad, { recursive: true })
    const content = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
    for (const field of changes) {
      for (const value of [5, 10_000_000, 1e12]) {
        const changed = { ...content, model: { ...content.model, [field]: value, numAttentionHeads: undefined } }
        if (name === 'encoder') changed.model.numAttentionHeads = 1
        writeFileSync(join(bad, 'config.json'), JSON.stringify(changed))
        await t.rejects(fromPretrained(device, bad), { code: 'MODEL_FORMAT' }, `${name}: ${field} ${value}`)
      }
    }
    for (const change of [{ tokenizer: null }, { tokenizer: 1 }, { labels: ['a', 'a'] }, { labels: ['a'] }]) {
      writeFileSync(join(bad, 'config.json'), JSON.stringify({ ...content, ...change }))
      await t.rejects(fromPretrained(device, bad), { code: 'MODEL_FORMAT' }, JSON.stringify(change))
    }
  }
})
