import { existsSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'

import t from 'tap'
import { LocalHub, type Served } from '../hub/support/hub.js'
import { parquetWriteBuffer } from '../support/parquet-writer.js'
import { refused, TestCli } from './support/cli.js'
import { mails, SMALL } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-dataset-'))
const file = (...names: string[]) => join(folder, ...names)

const names = ['ham', 'spam']
const features = { sentence: { dtype: 'string', _type: 'Value' }, label: { names, _type: 'ClassLabel' } }

/** Lines of a split as a Parquet file of the hub; without labels they are -1, as in GLUE's test sets. */
function parquet(lines: ReturnType<typeof mails>, labelled = true): Buffer {
  const numbers = lines.map(({ label }) => (labelled ? BigInt(names.indexOf(label)) : -1n))
  const columnData = [
    { name: 'sentence', data: lines.map(({ text }) => text), type: 'STRING' as const },
    { name: 'label', data: numbers, type: 'INT64' as const },
  ]
  const kvMetadata = [{ key: 'huggingface', value: JSON.stringify({ info: { features } }) }]
  return Buffer.from(parquetWriteBuffer({ columnData, kvMetadata }))
}

const lines = mails(300)
const csv = `text,label\n${mails(200)
  .map(({ text, label }) => `${text},${names.indexOf(label)}\n`)
  .join('')}`
const classes = ["'0': ham", "'1': spam"].map((line) => `          ${line}\n`).join('')
const card = `---\ndataset_info:\n  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n${classes}---\n`
const datasets: Record<string, Served> = {
  'nyu-mll/glue': {
    files: {
      'README.md': '---\nconfigs:\n- config_name: cola\n  data_dir: cola\n- config_name: sst2\n  data_dir: sst2\n---\n',
      'sst2/train-00000-of-00002.parquet': parquet(lines.slice(0, 150)),
      'sst2/train-00001-of-00002.parquet': parquet(lines.slice(150)),
      'sst2/validation-00000-of-00001.parquet': parquet(mails(60)),
      'sst2/test-00000-of-00001.parquet': parquet(mails(20), false),
    },
  },
  'owner/csv': { files: { 'README.md': card, 'train.csv': csv, 'test.csv': csv } },
}
const hub = await LocalHub.start(datasets)
t.teardown(() => {
  hub.stop()
  cli.remove()
  rmSync(folder, { recursive: true })
})
const env = { HF_HUB_CACHE: file('cache'), HF_ENDPOINT: hub.url }
const noNetwork = { HF_HUB_CACHE: file('cache'), HF_HUB_OFFLINE: '1' }
const FLAGS = ['--steps', '30', '--learning-rate', '3', '--seed', '1', '--json', ...SMALL]
const train = (output: string, ...flags: string[]) =>
  cli.run(['train', ...flags, '--noise-multiplier', '1', '--output', file(output), ...FLAGS], { env })
const certificate = (output: string) => JSON.parse(readFileSync(file(output, 'release/certificate.json'), 'utf8'))

t.test('train and eval on a part of a data set: splits, class names, shards', async (t) => {
  const { code, stdout, stderr } = await train('sst2', '--dataset', 'glue/sst2', '--text', 'sentence')
  t.equal(code, 0, stderr)
  t.match(JSON.parse(stdout), { examples: 300, validation: { examples: 60 } })
  t.match(certificate('sst2'), { publicConstants: { labels: names, labelsStated: true } })
  t.equal(hub.asked.filter((path) => path.includes('test-')).length, 0, 'a split that is not used is not downloaded')

  const local = file('local.jsonl')
  writeFileSync(local, lines.map(({ text, label }) => `${JSON.stringify({ text, label })}\n`).join(''))
  t.match(await train('local', '--train', local, '--labels', names.join(',')), { code: 0 })
  const weights = (output: string) => readFileSync(file(output, 'release/model.safetensors'))
  t.ok(weights('sst2').equals(weights('local')), 'the same rows in the same order')

  const evaluate = (...flags: string[]) =>
    cli.run(['eval', file('sst2'), '--dataset', 'glue/sst2', '--text', 'sentence', '--json', ...flags], {
      env: noNetwork,
    })
  t.match(JSON.parse((await evaluate()).stdout), { split: 'validation', accuracy: 1, examples: 60 })
  t.match(JSON.parse((await evaluate('--split', 'train')).stdout), { split: 'train', accuracy: 1, examples: 300 })
  const lacks = /nyu-mll\/glue: the network is switched off, and the cache lacks sst2\/test-00000-of-00001\.parquet/
  refused(t, await evaluate('--split', 'test'), 1, lacks)
  const online = ['eval', file('sst2'), '--dataset', 'glue/sst2', '--text', 'sentence', '--split', 'test']
  refused(t, await cli.run(online, { env }), 1, /test-00000-of-00001\.parquet:1: the label '-1' is unknown/)
})

t.test('CSV with class names in the card; a share set aside; a test split alone', async (t) => {
  const { code, stdout, stderr } = await train('csv', '--dataset', 'owner/csv', '--validation', '0.2')
  t.equal(code, 0, stderr)
  const { examples, validation } = JSON.parse(stdout)
  t.ok(validation.examples > 10 && examples + validation.examples === 200)
  t.same(certificate('csv').publicConstants.labels, names)
  const measure = (...flags: string[]) => cli.run(['eval', file('csv'), '--dataset', 'owner/csv', ...flags], { env })
  t.match(JSON.parse((await measure('--json')).stdout), { split: 'test', examples: 200, accuracy: 1 })
  t.match((await measure()).stdout, /^split +test\n/)
  const one = { ...env, HF_HUB_CACHE: file('other-cache') }
  const revision = ['eval', file('csv'), '--dataset', 'owner/csv', '--dataset-revision', 'v2']
  refused(t, await cli.run(revision, { env: one }), 1, /no data set owner\/csv with revision 'v2'/)
})

t.test('a Parquet file on disk', async (t) => {
  writeFileSync(file('train.parquet'), parquet(lines))
  writeFileSync(file('held.parquet'), parquet(mails(40)))
  const flags = ['--train', file('train.parquet'), '--validation', file('held.parquet'), '--text', 'sentence']
  const { code, stdout, stderr } = await train('parquet', ...flags)
  t.equal(code, 0, stderr)
  t.match(JSON.parse(stdout), { examples: 300, validation: { examples: 40 } })
  const data = ['--data', file('held.parquet'), '--text', 'sentence', '--json']
  t.match(JSON.parse((await cli.run(['eval', file('parquet'), ...data])).stdout), { examples: 40, accuracy: 1 })
})

t.test('what is refused: one line, and nothing is left', async (t) => {
  Object.assign(process.env, env)
  const train = (...flags: string[]) =>
    cli.fail(t, ['train', '--noise-multiplier', '1', '--output', file('none'), ...flags])
  for (const [flags, code, says] of [
    [['--dataset', 'glue'], 1, /nyu-mll\/glue has several parts.* cola, sst2/],
    [['--dataset', 'glue/sst2'], 1, /no column 'text'; the columns are 'sentence', 'label'/],
    [['--dataset', 'owner/none'], 1, /There is no data set owner\/none/],
    [['--dataset', 'some words'], 1, /Expected a data set as owner\/name or owner\/name\/part, got 'some words'/],
    [['--dataset', 'glue/sst2', '--train', 'x.csv'], 2, /--train cannot be given with --dataset/],
    [['--train', 'x.csv', '--dataset-revision', 'v1'], 2, /--dataset-revision is for --dataset/],
    [[], 2, /--train \(or --dataset\) is needed/],
  ] as const) {
    refused(t, await train(...flags), code, says)
    t.notOk(existsSync(file('none')))
  }
  for (const [flags, says] of [
    [[], /--data \(or --dataset\) is needed/],
    [['--data', 'x.csv', '--dataset', 'glue/sst2'], /--data cannot be given with --dataset/],
    [['--data', 'x.csv', '--split', 'test'], /--split and --dataset-revision are for --dataset/],
    [['--dataset', 'glue/sst2', '--split', 'dev'], /--split/],
  ] as const) {
    refused(t, await cli.fail(t, ['eval', file('sst2'), ...flags]), 2, says)
  }
})
