import { cpSync, existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Predictor } from '../../lib/train/predict.js'
import { trainableBert } from '../support/bert.js'
import { refused, TestCli } from './support/cli.js'
import { writeMails } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-merge-'))
const file = (...names: string[]) => join(folder, ...names)
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const base = file('bert')
const { tokenizer } = JSON.parse(
  readFileSync(new URL('../data/fixtures/word-piece.json', import.meta.url), 'utf8'),
) as { tokenizer: { model: { vocab: Record<string, number> } } }
const vocabularySize = Math.max(...Object.values(tokenizer.model.vocab)) + 1
{
  using device = Device.open('cpu', { threads: 1 })
  using model = new BertClassifier(new Initializer(device, 1), trainableBert(vocabularySize))
  await model.savePretrained(base)
  writeFileSync(join(base, 'tokenizer.json'), JSON.stringify(tokenizer))
}

const data = writeMails(folder, 'mails.jsonl', 200)
const flags = ['--train', data, '--model', base, '--trainable', 'lora', '--max-length', '24', '--threads', '1']
const amounts = [
  '--noise-multiplier',
  '1',
  '--steps',
  '6',
  '--learning-rate',
  '0.01',
  '--lora-rank',
  '2',
  '--lora-layers',
  '0,1',
  '--seed',
  '3',
]
const train = (output: string, ...more: string[]) =>
  cli.run(['train', ...flags, ...amounts, '--output', file(output), '--json', ...more])
const logitsOf = async (path: string) => {
  using predictor = await Predictor.open(path, { threads: 1 })
  return await predictor.logits(['number 3 winner cheap', 'lunch report', ''])
}

t.test('a run that releases adapters, merged: the release of the same run with plain weights', async (t) => {
  t.match(await train('plain'), { code: 0 })
  t.match(await train('adapters', '--release', 'adapters'), { code: 0 })
  t.same(readdirSync(file('adapters', 'release')).sort(), [
    'adapter_config.json',
    'adapter_model.safetensors',
    'certificate.json',
    'config.json',
    'tokenizer.json',
    'tokenizer_config.json',
  ])
  const { code, stdout, stderr } = await cli.run(['merge', file('adapters'), '--output', file('merged'), '--json'])
  t.match({ code, stderr }, { code: 0, stderr: '' })
  t.same(JSON.parse(stdout), { output: file('merged'), base, merged: 12 })
  for (const name of readdirSync(file('adapters', 'release'))) {
    t.notOk(readFileSync(file('adapters', 'release', name)).includes(folder), `${name}: no path of this machine`)
  }
  t.match(
    readFileSync(file('adapters', 'release', 'adapter_config.json'), 'utf8'),
    '"base_model_name_or_path": "./bert"',
  )
  const bytes = (...names: string[]) => readFileSync(file(...names))
  t.notOk(bytes('merged', 'model.safetensors').equals(readFileSync(join(base, 'model.safetensors'))))
  for (const name of ['model.safetensors', 'config.json', 'tokenizer.json', 'tokenizer_config.json']) {
    t.ok(bytes('merged', name).equals(bytes('plain', 'release', name)), name)
  }
  t.ok(bytes('merged', 'certificate.json').equals(bytes('adapters', 'release', 'certificate.json')))
  const expected = await logitsOf(file('plain'))
  t.same(await logitsOf(file('merged')), expected)
  t.same(await logitsOf(file('adapters')), expected, 'adapters are opened as they are, too')

  const copied = await cli.run(['merge', file('plain'), '--output', file('copied')])
  t.match(copied, { code: 0, stdout: /plain already/ })
  t.same(await logitsOf(file('copied')), expected)
})

t.test('the base may have moved', async (t) => {
  cpSync(base, file('moved'), { recursive: true })
  cpSync(file('adapters', 'release'), file('alone'), { recursive: true })
  rmSync(base, { recursive: true })
  const merge = (...more: string[]) => ['merge', file('alone'), '--output', file('again'), ...more]
  refused(
    t,
    await cli.fail(t, merge()),
    1,
    /alone holds adapters of \.\/bert, and no model is there, nor beside them\. .*--base/,
  )
  t.match(await cli.run(merge('--base', file('moved'))), { code: 0 })
  t.ok(readFileSync(file('again', 'model.safetensors')).equals(readFileSync(file('merged', 'model.safetensors'))))
  refused(t, await cli.fail(t, merge('--base', file('merged'))), 1, /again is not empty.*--overwrite/)
  refused(t, await cli.fail(t, merge('--base', file('merged'), '--overwrite')), 1, /merged is not the model that/)
  t.match(await cli.run(merge('--base', file('moved'), '--overwrite')), { code: 0 })
})

t.test('what is refused: one line, and nothing is left', async (t) => {
  const output = ['--output', file('out')]
  for (const [args, code, says] of [
    [['merge', file('alone')], 2, /--output is needed/],
    [['merge', file('nowhere'), ...output], 1, /nowhere holds no model/],
    [['train', ...flags, ...amounts, '--trainable', 'head', '--release', 'adapters', ...output], 1, /trainable 'lora'/],
    [
      ['train', '--train', data, '--target-epsilon', '3', '--trainable', 'lora', '--release', 'adapters', ...output],
      1,
      /a pretrained model/,
    ],
    [['train', ...flags, ...amounts, '--release', 'both', ...output], 2, /--release.*merged, adapters/],
  ] as const) {
    refused(t, await cli.fail(t, args), code, says)
    t.notOk(existsSync(file('out')))
  }
})

t.test('a file that may not be as large as the model: one line, and nothing is left', async (t) => {
  const before = readdirSync(folder)
  // Without tap's report, which a child writes at its end and has no more room for.
  const prefix = ['bash', '-c', 'ulimit -f 4; exec env -u NODE_OPTIONS "$@"', 'limited']
  const args = ['merge', file('alone'), '--base', file('moved'), '--output', file('too-large')]
  refused(t, await cli.run(args, { prefix }), 1, /would pass the size limit.*EFBIG/)
  t.same(readdirSync(folder), before)
})
