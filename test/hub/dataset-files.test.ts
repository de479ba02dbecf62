import t from 'tap'
import { type DatasetCard, parseDatasetCard } from '../../lib/hub/dataset-card.js'
import { filesOfDataset } from '../../lib/hub/dataset-files.js'

const none: DatasetCard = { configs: [], labelNames: new Map() }

/** The card of GLUE, shortened. */
const glue = `---
license: other
dataset_info:
- config_name: cola
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': unacceptable
          '1': acceptable
- config_name: sst2
  features:
  - name: sentence
    dtype: string
  - name: label
    dtype:
      class_label:
        names:
          '0': negative
          '1': positive
configs:
- config_name: cola
  data_files:
  - split: train
    path: cola/train-*
  - split: validation
    path: cola/validation-*
- config_name: sst2
  data_files:
  - split: train
    path: sst2/train-*
  - split: validation
    path: sst2/validation-*
  - split: test
    path: sst2/test-*
---

# Dataset Card for GLUE
`
const part = (folder: string, split: string) => `${folder}/${split}-00000-of-00001.parquet`
const gluePaths = [
  'README.md',
  'glue.py',
  ...['cola', 'sst2'].flatMap((one) => ['train', 'validation', 'test'].map((split) => part(one, split))),
]

t.test('from a card: parts, patterns and class names', async (t) => {
  const card = await parseDatasetCard(glue)
  t.same(
    card.configs.map(({ name }) => name),
    ['cola', 'sst2'],
  )
  t.same(card.labelNames.get('sst2')!.get('label'), ['negative', 'positive'])
  t.same(filesOfDataset('nyu-mll/glue', 'sst2', gluePaths, card), {
    config: 'sst2',
    splits: {
      train: [part('sst2', 'train')],
      validation: [part('sst2', 'validation')],
      test: [part('sst2', 'test')],
    },
  })
  t.same(Object.keys(filesOfDataset('nyu-mll/glue', 'cola', gluePaths, card).splits), ['train', 'validation'])
  t.throws(() => filesOfDataset('nyu-mll/glue', undefined, gluePaths, card), {
    code: 'DATA_FORMAT',
    message: /several parts; name one of them as nyu-mll\/glue\/PART\. There are cola, sst2/,
  })
  t.throws(() => filesOfDataset('nyu-mll/glue', 'sst3', gluePaths, card), { message: /no part 'sst3'/ })
})

t.test('the forms of a card', async (t) => {
  const paths = ['a/train.csv', 'a/deep/more.csv', 'a/dev.csv', 'b/x1.jsonl', 'b/x2.jsonl', 'b/y.jsonl', 'b/x1.txt']
  const filesOf = async (yaml: string) =>
    filesOfDataset('o/n', undefined, paths, await parseDatasetCard(`---\n${yaml}\n---\n`)).splits
  for (const [yaml, splits] of [
    [
      'configs:\n- config_name: default\n  data_files: "b/*.jsonl"',
      { train: ['b/x1.jsonl', 'b/x2.jsonl', 'b/y.jsonl'] },
    ],
    ['configs:\n- data_files: ["b/x?.jsonl"]', { train: ['b/x1.jsonl', 'b/x2.jsonl'] }],
    [
      'configs:\n- data_files:\n  - split: test\n    path: ["b/x[0-1].jsonl", "b/y*"]',
      { test: ['b/x1.jsonl', 'b/y.jsonl'] },
    ],
    ['configs:\n- data_files:\n  - split: dev\n    path: "b/[!x]*"', { validation: ['b/y.jsonl'] }],
    [
      'configs:\n- data_files:\n  - split: train\n    path: "**/*.csv"',
      { train: ['a/deep/more.csv', 'a/dev.csv', 'a/train.csv'] },
    ],
    [
      'configs:\n- data_files:\n  - split: train\n    path: "a/**"',
      { train: ['a/deep/more.csv', 'a/dev.csv', 'a/train.csv'] },
    ],
    ['configs:\n- config_name: z\n  data_dir: a', { train: ['a/train.csv'], validation: ['a/dev.csv'] }],
    [
      'configs:\n- config_name: y\n  data_dir: b\n- config_name: z\n  default: true\n  data_dir: ./a/',
      { train: ['a/train.csv'], validation: ['a/dev.csv'] },
    ],
  ] as const) {
    t.same(await filesOf(yaml), splits, yaml)
  }
  await t.rejects(filesOf('configs:\n- data_files:\n  - split: train\n    path: "c/*"'), { code: 'DATA_FORMAT' })
  for (const readme of [
    '',
    '# no front matter',
    '---\n: [\n---\n',
    '---\nconfigs: 3\n---\n',
    '---\nunfinished',
    '---\na: &a [*a]\n---\n',
  ]) {
    t.same(await parseDatasetCard(readme), none, JSON.stringify(readme))
  }
  const info = (yaml: string) => parseDatasetCard(`---\r\ndataset_info:\r\n${yaml}\r\n---\r\n`)
  const one = await info(
    "  features:\r\n  - name: label\r\n    dtype:\r\n      class_label:\r\n        names:\r\n          '0': a\r\n          '1': b",
  )
  t.same(one.labelNames.get('default')!.get('label'), ['a', 'b'])
  const holes = await info(
    "  features:\n  - name: label\n    dtype:\n      class_label:\n        names:\n          '0': a\n          '2': b",
  )
  t.same(holes.labelNames.get('default')!.get('label'), undefined, 'numbers with a hole name nothing')
})

t.test('without a card, from the names of files', (t) => {
  for (const [config, paths, splits] of [
    [undefined, ['train.jsonl', 'test.jsonl', 'README.md'], { train: ['train.jsonl'], test: ['test.jsonl'] }],
    [
      undefined,
      ['data/train-00001-of-00002.parquet', 'data/train-00000-of-00002.parquet', 'data/valid.parquet', 'train.csv'],
      {
        train: ['data/train-00000-of-00002.parquet', 'data/train-00001-of-00002.parquet'],
        validation: ['data/valid.parquet'],
      },
    ],
    [
      'part',
      ['part/dev.tsv', 'other/train.tsv', 'part/train/0.tsv', 'part/train/1.tsv'],
      {
        validation: ['part/dev.tsv'],
        train: ['part/train/0.tsv', 'part/train/1.tsv'],
      },
    ],
    [undefined, ['reviews.csv'], { train: ['reviews.csv'] }],
    [undefined, ['my_training_set.csv', 'testing.csv'], { train: ['my_training_set.csv'], test: ['testing.csv'] }],
    [undefined, ['constraints.csv', 'latest.csv', 'train.csv'], { train: ['train.csv'] }],
  ] as const) {
    t.same(filesOfDataset('o/n', config, paths, none).splits, splits, paths.join(' '))
  }
  for (const [config, paths, message] of [
    [undefined, [], /o\/n has no data that can be read: .*got none/],
    [undefined, ['a.csv', 'b.csv'], /got a\.csv, b\.csv/],
    [undefined, ['n.py', 'README.md'], /made by a program, n\.py, which is not run/],
    ['part', ['other/train.csv'], /o\/n, part 'part', has no data/],
    [undefined, ['train.csv.gz', 'train.bin'], /has no data/],
  ] as const) {
    t.throws(() => filesOfDataset('o/n', config, paths, none), { code: 'DATA_FORMAT', message }, String(message))
  }
  t.end()
})
