import { existsSync, readdirSync, readFileSync, rmSync } from 'node:fs'
import { join, relative } from 'node:path'
import t from 'tap'
import { readExamples } from '../../lib/data/index.js'
import { type DatasetOptions, type DatasetSplit, downloadDataset, isDatasetName } from '../../lib/hub/index.js'
import { COMMIT, LocalHub, type Served } from './support/hub.js'

const parquet = readFileSync(new URL('../data/fixtures/parquet/snappy.parquet', import.meta.url))
const csv = 'text,label\ngood film,1\nbad film,0\n'
const card = (...lines: string[]) => `---\n${lines.join('\n')}\n---\n# A data set\n`
const named = card(
  'dataset_info:',
  '  features:',
  '  - name: label',
  '    dtype:',
  '      class_label:',
  '        names:',
  "          '0': negative",
  "          '1': positive",
)
const sst2 = Object.fromEntries(
  ['train', 'validation', 'test'].map((split) => [`sst2/${split}-00000-of-00001.parquet`, parquet]),
)
const datasets: Record<string, Served> = {
  'nyu-mll/glue': {
    files: {
      'README.md': card(
        'configs:',
        ...['cola', 'sst2'].flatMap((one) => [`- config_name: ${one}`, `  data_dir: ${one}`]),
      ),
      'glue.py': 'raise SystemExit()',
      'cola/train.csv': csv,
      ...sst2,
    },
  },
  'stanfordnlp/sst2': { files: { 'README.md': '', ...sst2 } },
  'owner/csv': { files: { 'README.md': named, 'train.csv': csv, 'test.csv': csv } },
  'owner/shards': {
    files: { 'train-00000-of-00002.parquet': parquet, 'train-00001-of-00002.parquet': parquet, 'dev.parquet': parquet },
  },
  'owner/script': { files: { 'README.md': '', 'script.py': 'raise SystemExit()' } },
  'owner/changed': { files: { 'train.csv': csv }, sent: { 'train.csv': csv.replace('good', 'evil') } },
  'owner/outside': { files: { '../../../train.csv': csv, 'a/../../train.csv': csv, 'train.csv': csv } },
  'owner/long-card': { files: { 'README.md': Buffer.alloc(2 ** 23 + 1), 'train.csv': csv } },
  'owner/secret': { files: {}, status: 401 },
  'owner/down': { files: {}, status: 503 },
}
const hub = await LocalHub.start(datasets)
t.teardown(() => hub.stop())
const root = t.testdir()
let caches = 0
const fresh = (...splits: DatasetSplit[]): DatasetOptions => ({
  splits: splits.length > 0 ? splits : ['train', 'validation', 'test'],
  hubUrl: hub.url,
  cacheFolder: join(root, `cache-${caches++}`),
})
const filesIn = (folder: string) =>
  readdirSync(folder, { recursive: true, withFileTypes: true })
    .filter((one) => one.isFile())
    .map((one) => relative(folder, join(one.parentPath, one.name)))
    .sort()

t.test('the splits that are asked for, and nothing else, in the layout of other programs', async (t) => {
  const options = fresh('train', 'validation')
  const seen: number[] = []
  const onProgress: DatasetOptions['onProgress'] = ({ bytes, totalBytes }) => seen.push(bytes / totalBytes)
  const { files, splits, labelNames } = await downloadDataset('glue/sst2', { ...options, onProgress })
  const folder = join(options.cacheFolder!, 'datasets--nyu-mll--glue', 'snapshots', COMMIT)
  t.same(files, {
    train: [join(folder, 'sst2/train-00000-of-00001.parquet')],
    validation: [join(folder, 'sst2/validation-00000-of-00001.parquet')],
  })
  t.same(splits, ['train', 'validation', 'test'])
  t.equal(labelNames.size, 0)
  t.same(filesIn(folder), ['README.md', 'sst2/train-00000-of-00001.parquet', 'sst2/validation-00000-of-00001.parquet'])
  t.equal(seen.at(-1), 1)
  const examples = await readExamples(files.train!, { text: 'sentence', label: 'label' })
  t.same([examples.length, examples[1]!.label], [7, 'positive'])

  hub.asked.length = 0
  t.same((await downloadDataset('nyu-mll/glue/sst2', options)).files, files)
  t.notOk(
    hub.asked.some((path) => path.includes('/resolve/')),
    'what is there is not downloaded again',
  )
  t.same((await downloadDataset('nyu-mll/glue/cola', fresh('train', 'test'))).splits, ['train'])
})

t.test('other forms: a part of its own, shards, CSV with class names in the card', async (t) => {
  for (const name of ['sst2', 'stanfordnlp/sst2']) {
    t.same(Object.keys((await downloadDataset(name, fresh())).files), ['train', 'validation', 'test'], name)
  }
  const shards = await downloadDataset('owner/shards', fresh('train'))
  t.equal((await readExamples(shards.files.train!, { text: 'sentence', label: 'label' })).length, 14)
  const { files, labelNames } = await downloadDataset('owner/csv', fresh())
  t.same(labelNames.get('label'), ['negative', 'positive'])
  const examples = await readExamples(files.test!, {
    text: 'text',
    label: 'label',
    labelNames: labelNames.get('label')!,
  })
  t.same(
    examples.map(({ label }) => label),
    ['positive', 'negative'],
  )
})

t.test('without a network the cache is enough, and where it is not that is said', async (t) => {
  const stopped = await LocalHub.start({})
  const gone = stopped.url
  stopped.stop()
  for (const name of ['glue/sst2', 'owner/csv', 'owner/shards']) {
    const options = fresh('train')
    const { files, labelNames } = await downloadDataset(name, options)
    for (const more of [{ hubUrl: gone }, { offline: true }, { offline: true, revision: COMMIT }]) {
      const again = await downloadDataset(name, { ...options, ...more })
      t.same([again.files, again.labelNames], [files, labelNames], name)
    }
    const test = { ...options, splits: ['test'] as const, offline: true }
    if (name === 'owner/shards') t.same((await downloadDataset(name, test)).files, {}, 'there is no such split')
    else await t.rejects(downloadDataset(name, test), { code: 'NETWORK' }, 'a split that was not downloaded')
  }
  const options = fresh('train')
  const { files } = await downloadDataset('owner/shards', options)
  rmSync(files.train![1]!)
  const offline = { ...options, offline: true }
  await t.rejects(downloadDataset('owner/shards', offline), { code: 'NETWORK' }, 'a shard is missing')
  await t.rejects(downloadDataset('glue/sst2', { ...fresh(), hubUrl: gone }), {
    code: 'NETWORK',
    message:
      /^Cannot download nyu-mll\/glue: .*ECONNREFUSED.*Connect to the network, or name a file that holds the data$/,
  })
  await t.rejects(downloadDataset('glue/sst2', { ...fresh(), offline: true }), { message: /switched off/ })
  await t.rejects(downloadDataset('owner/down', fresh()), { code: 'NETWORK' })
})

t.test('what is refused', async (t) => {
  await t.rejects(downloadDataset('owner/nothing', fresh()), {
    code: 'FILE_NOT_FOUND',
    message: /There is no data set owner\/nothing with revision 'main'/,
  })
  await t.rejects(downloadDataset('owner/secret', fresh()), { code: 'FILE_ACCESS', message: /HF_TOKEN/ })
  await t.rejects(downloadDataset('owner/script', fresh()), { code: 'DATA_FORMAT', message: /script\.py/ })
  await t.rejects(downloadDataset('nyu-mll/glue', fresh()), { code: 'DATA_FORMAT', message: /cola, sst2/ })
  for (const name of ['', 'imaginary', 'a/b/c/d', '../x', 'owner/..', 'owner/name/', 'a/b/']) {
    await t.rejects(downloadDataset(name, fresh()), { code: 'INVALID_ARGUMENT' }, name)
    t.notOk(isDatasetName(name))
  }
  hub.asked.length = 0
  const tooLong = { code: 'DATA_FORMAT', message: /card of owner\/long-card.* has 8388609 bytes, expected at most/ }
  await t.rejects(downloadDataset('owner/long-card', fresh()), tooLong)
  t.notOk(
    hub.asked.some((path) => path.includes('/resolve/')),
    'it is not downloaded',
  )
  const options = fresh()
  await t.rejects(downloadDataset('owner/changed', options), { code: 'MODEL_FORMAT', message: /another checksum/ })
  t.same(filesIn(join(options.cacheFolder!, 'datasets--owner--changed', 'snapshots')), [], 'nothing of it is kept')
  const outside = fresh()
  const { files } = await downloadDataset('owner/outside', outside)
  t.equal(files.train!.length, 1, 'files outside the repository are not taken for its own')
  t.notOk(existsSync(join(outside.cacheFolder!, 'train.csv')))
  const stop = { ...fresh(), signal: AbortSignal.abort() }
  await t.rejects(downloadDataset('owner/csv', stop), { code: 'ABORTED' })
})
