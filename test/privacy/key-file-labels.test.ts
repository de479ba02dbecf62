import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { SafetensorsFile } from '../../lib/models/safetensors.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { trainableBert } from '../support/bert.js'
import { correlation } from '../support/statistics.js'
import { tinyRun } from '../train/support/runs.js'

const root = t.testdir()
const data = writeMails(root, 'mails.jsonl', 300)
const { tokenizer } = JSON.parse(readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'))
const base = join(root, 'bert')
const matrix = 'bert.encoder.layer.0.attention.self.query.weight'

{
  using device = Device.open('cpu', { threads: 1 })
  const vocabularySize = Math.max(...(Object.values(tokenizer.model.vocab) as number[])) + 1
  using model = new BertClassifier(new Initializer(device, 1), trainableBert(vocabularySize))
  await model.savePretrained(base)
  writeFileSync(join(base, 'tokenizer.json'), JSON.stringify(tokenizer))
}

async function matrixOf(folder: string): Promise<Float32Array> {
  await using file = await SafetensorsFile.open(join(folder, 'model.safetensors'))
  return file.readFloat32(matrix)
}

/** What one step of a run changed: with Adam and this much noise, the signs of the noise. */
async function changed(name: string, labels: string[], byte = 0x5c): Promise<Float32Array> {
  const keyFile = join(root, `key-${byte}`)
  writeFileSync(keyFile, Buffer.alloc(32, byte))
  const output = join(root, name)
  const small = { steps: 1, noiseMultiplier: 50, learningRate: 0.01, model: { pretrained: base } }
  await train({ ...tinyRun(data, output, small), keyFile, labels })
  const before = await matrixOf(base)
  return (await matrixOf(join(output, 'release'))).map((value, i) => value - before[i]!)
}

t.test('one key file, and classes that only one of two runs states: another head, so other noise', async (t) => {
  const two = await changed('two', ['ham', 'spam'])
  t.same(await changed('two-again', ['ham', 'spam']), two, 'all the same: the same weights')
  const unrelated = Math.abs(correlation(two, await changed('another-key', ['ham', 'spam'], 1)))
  t.ok(unrelated < 0.4, `another key: ${unrelated}`)
  const three = Math.abs(correlation(two, await changed('three', ['ham', 'spam', 'other'])))
  t.ok(three < 0.4, `another class: ${three}`)
})
