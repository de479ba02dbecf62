import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { trainFlags } from '../../lib/cli/train-flags.js'
import { readValues } from '../../lib/cli/values.js'

const folder = mkdtempSync(join(tmpdir(), 'dp-moe-config-'))
t.teardown(() => rmSync(folder, { recursive: true }))

function config(text: string | Uint8Array): string {
  const path = join(folder, 'run.yaml')
  writeFileSync(path, text)
  return path
}

const read = (text: string | Uint8Array, given: Record<string, unknown> = {}) =>
  readValues(trainFlags, given, config(text), 'train')

t.test('keys in camel case or with dashes, of every kind; flags win', async (t) => {
  const text = [
    '# a run',
    'train: mails.jsonl',
    'target-epsilon: 3',
    'maxGradNorm: 1e-1',
    'labels: [0, ham, true]',
    'nonPrivate: false',
    'validation: 0.2',
    'relation: zero-out',
    'label: 2024',
    'loraLayers: 3',
    'model:',
    '  numExperts: 8',
    '  modelType: switch',
    '  gated: true',
    'epochs: 10',
  ].join('\n')
  t.same(await read(text, { epochs: '20', steps: '1e3', output: 'run' }), {
    train: 'mails.jsonl',
    targetEpsilon: 3,
    maxGradNorm: 0.1,
    labels: ['0', 'ham', 'true'],
    nonPrivate: false,
    validation: 0.2,
    relation: 'zero-out',
    label: '2024',
    loraLayers: [3],
    model: { numExperts: 8, modelType: 'switch', gated: true },
    epochs: 20,
    steps: 1000,
    output: 'run',
  })
})

t.test('flags alone: strings become what the flag holds', async (t) => {
  const given = {
    validation: 'held.csv',
    labels: 'a,b',
    model: ['numExperts=8,gated=true', 'modelType=a=b'],
    nonPrivate: true,
    learningRate: '.5',
  }
  t.same(await readValues(trainFlags, given, undefined, 'train'), {
    validation: 'held.csv',
    labels: ['a', 'b'],
    model: { numExperts: 8, gated: true, modelType: 'a=b' },
    nonPrivate: true,
    learningRate: 0.5,
  })
})

t.test('an empty file states nothing', async (t) => {
  t.same(await read(''), {})
  t.same(await read('# nothing\n'), {})
})

const WRONG: readonly (readonly [string, string, string, RegExp])[] = [
  ['unknown key', 'epochs: 3\nepoch: 3', 'USAGE', /run\.yaml:2: epoch: unknown key; .*train.*target-epsilon/],
  ['a key of Object', 'constructor: 3', 'USAGE', /run\.yaml:1: constructor: unknown key/],
  ['__proto__', '__proto__: {train: x}', 'USAGE', /run\.yaml:1: __proto__: unknown key/],
  ['config in a config', 'config: other.yaml', 'USAGE', /run\.yaml:1: config: unknown key/],
  ['both spellings', 'max-length: 3\nmaxLength: 3', 'USAGE', /run\.yaml:2: maxLength: the key is given twice/],
  ['the same key twice', 'epochs: 3\nepochs: 4', 'DATA_FORMAT', /run\.yaml:2: it is not YAML: .*unique/i],
  ['a text for a number', 'train: x\nepochs: many', 'USAGE', /run\.yaml:2: epochs: expected a number, got 'many'/],
  ['nothing for a number', 'epochs:', 'USAGE', /run\.yaml:1: epochs: expected a number, got nothing/],
  ['not a number', 'epochs: .nan', 'USAGE', /run\.yaml:1: epochs: expected a number, got/],
  ['a text for a switch', 'non-private: "yes"', 'USAGE', /run\.yaml:1: non-private: expected true or false, got 'yes'/],
  ['a map for a text', 'train: {file: x}', 'USAGE', /run\.yaml:1: train: expected a text, got \{"file":"x"\}/],
  ['a map in a list', 'labels: [{a: b}]', 'USAGE', /run\.yaml:1: labels: expected/],
  ['a list for a map', 'model: [1]', 'USAGE', /run\.yaml:1: model: expected name=value/],
  ['not YAML', 'train: x\n  epochs: [', 'DATA_FORMAT', /run\.yaml:\d: it is not YAML/],
  ['a list', '- train\n- output', 'DATA_FORMAT', /run\.yaml:1: expected lines such as "epochs: 10"/],
  ['a word', 'train', 'DATA_FORMAT', /run\.yaml:1: expected lines/],
]

t.test('a file that is wrong: an error with file, line and key', async (t) => {
  for (const [name, text, code, message] of WRONG) await t.rejects(read(text), { code, message }, name)
})

t.test('aliases that grow without end are refused', async (t) => {
  const grow = Array.from({ length: 12 }, (_, i) => `l${i}: &l${i} [${Array(9).fill(i === 0 ? 'x' : `*l${i - 1}`)}]`)
  await t.rejects(read(['model:', ...grow.map((line) => `  ${line}`)].join('\n')), {
    code: 'DATA_FORMAT',
    message: /run\.yaml:1: its aliases cannot be resolved/,
  })
})

t.test('no file', async (t) => {
  const message = /Cannot read .*none\.yaml: it does not exist/
  await t.rejects(readValues(trainFlags, {}, join(folder, 'none.yaml'), 'train'), { code: 'FILE_NOT_FOUND', message })
})
