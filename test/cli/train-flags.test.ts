import type { ChildProcess } from 'node:child_process'
import { existsSync, mkdtempSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { flagName } from '../../lib/cli/flags.js'
import { trainFlags } from '../../lib/cli/train-flags.js'
import { TestCli } from './support/cli.js'
import { mails, SMALL, writeMails } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-flags-'))
const file = (name: string) => join(folder, name)
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

function table(name: string, count: number): string {
  const lines = mails(count).map(({ text, label }, i) => `${label},"${text}",author ${i % 100}`)
  writeFileSync(file(name), `class,body,author\n${lines.join('\n')}\n`)
  return file(name)
}

const weights = (output: string) => readFileSync(join(output, 'release/model.safetensors'))
const json = (...path: string[]) => JSON.parse(readFileSync(join(...path), 'utf8'))
const oneObject = (stdout: string) => {
  const lines = stdout.split('\n')
  t.same([lines.length, lines[1]], [2, ''], 'one line on standard output')
  return JSON.parse(lines[0]!)
}

writeFileSync(file('key'), Buffer.alloc(32, 9))

/** Flags that another test of this folder covers, or another of this file. */
const ELSEWHERE = [
  'dataset',
  'datasetRevision',

  ...['tokenizer', 'output', 'overwrite', 'resume', 'noiseMultiplier', 'nonPrivate', 'seed', 'epochs'],
  ...['prompt', 'completion', 'source', 'target', 'activationCheckpointing'],
  ...['loraRank', 'loraAlpha', 'loraTargets', 'loraLayers'],
]

const settings = {
  task: 'classification',
  train: table('train.csv', 300),
  validation: table('held.csv', 50),
  text: 'body',
  label: 'class',
  labels: 'spam,ham',
  group: 'author',
  maxExamplesPerUser: 2,
  maxLength: 5,
  checkpointEvery: 2,
  targetEpsilon: 5,
  targetDelta: 1e-4,
  maxGradNorm: 0.7,
  clipping: 'per-layer',
  relation: 'add-or-remove-one',
  sampleRate: 0.2,
  steps: 5,
  keyFile: file('key'),
  expectedBatchSize: 50,
  learningRate: 3,
  model: 'vocabularySize=1024,hiddenSize=16,numExperts=4',
  trainable: 'all',
  release: 'merged',
  device: 'cpu',
  precision: 'float32',
  threads: 1,
  memoryBudget: 1e6,
  maxTokensPerMicrobatch: 64,
}

t.test('every flag of train reaches the run, from the command line and from a file', async (t) => {
  t.same([...Object.keys(settings), ...ELSEWHERE].sort(), Object.keys(trainFlags).sort(), 'no flag is left out')
  const flags = Object.entries(settings).flatMap(([name, value]) => [flagName(name), String(value)])
  const output = file('flags')
  const { code, stdout, stderr } = await cli.run(['train', ...flags, '--output', output, '--json'])
  t.equal(code, 0, stderr)
  const result = oneObject(stdout)
  t.match(result, {
    output,
    private: true,
    examples: 200,
    users: 100,
    steps: 5,
    delta: 1e-4,
    validation: { examples: 50 },
  })
  t.ok(result.epsilon <= 5 && result.epsilon > 4.9)
  t.match(json(output, 'release/certificate.json'), {
    unit: 'user',
    relation: 'add-or-remove-one',
    sampleRate: 0.2,
    expectedBatchSize: 50,
    plannedSteps: 5,
    steps: 5,
    delta: 1e-4,
    epsilon: result.epsilon,
    noiseMultiplier: result.noiseMultiplier,
    maxGradNorm: 0.7,
    clipping: 'per-layer',
    seeded: false,
    publicConstants: {
      labels: ['spam', 'ham'],
      labelsStated: true,
      maxExamplesPerUser: 2,
      maxLength: 5,
      tokenizer: { type: 'word-hash', vocabularySize: 1024 },
    },
  })
  t.match(json(output, 'release/config.json').model, { vocabularySize: 1024, hiddenSize: 16, numExperts: 4 })
  t.same(readdirSync(join(output, 'private/checkpoints')).sort(), ['step-0000000004', 'step-0000000005'])

  const again = file('config')
  const { model: _, ...rest } = settings
  const lines = Object.entries(rest).map(([name, value]) => `${flagName(name).slice(2)}: ${value}`)
  const model = 'model: {vocabularySize: 1024, hiddenSize: 16, numExperts: 4}'
  writeFileSync(file('run.yaml'), [...lines, model, 'json: true', `output: ${again}`].join('\n'))
  const fromFile = await cli.run(['train', '--config', file('run.yaml')])
  t.equal(fromFile.code, 0, fromFile.stderr)
  t.match(oneObject(fromFile.stdout), { ...result, output: again, seconds: Number })
  t.ok(weights(again).equals(weights(output)), 'the same key and settings, the same weights')
})

t.test('--activation-checkpointing, and an example longer than a micro-batch', async (t) => {
  const data = writeMails(folder, 'some-mails.jsonl', 200)
  const shape =
    'modelType=switch-classifier,hiddenSize=8,numLayers=2,numAttentionHeads=2,intermediateSize=8,numExperts=2,maxPositions=32,vocabularySize=256'
  const flags = ['train', '--train', data, '--noise-multiplier', '1', '--steps', '3', '--seed', '4', '--model', shape]
  const args = [...flags, '--max-length', '20', '--max-tokens-per-microbatch', '16', '--json', '--output']
  const [kept, again] = [file('kept'), file('computed-again')]
  const without = await cli.run([...args, kept])
  t.equal(without.code, 0, without.stderr)
  t.match(without.stderr, /an example may have 20 tokens, is never cut and is computed alone .* more than 16/)
  t.equal((await cli.run([...args, again, '--activation-checkpointing'])).code, 0)
  t.ok(weights(again).equals(weights(kept)), 'the same model, bit for bit')
})

t.test('a run with a key file, interrupted and resumed, ends as the unbroken one', async (t) => {
  const data = writeMails(folder, 'mails.jsonl', 300)
  const flags = ['train', '--train', data, '--noise-multiplier', '1', '--steps', '150', '--key-file', file('key')]
  const args = (output: string) => [...flags, '--expected-batch-size', '60', '--json', ...SMALL, '--output', output]
  const unbroken = file('unbroken')
  t.equal((await cli.run(args(unbroken))).code, 0)

  const output = file('interrupted')
  const stopped = await cli.run(args(output), { started: (child) => interruptOnceRecorded(child, output) })
  t.match(stopped, { code: 130, stdout: '' })
  t.match(stopped.stderr, /^dp-moe: Stopped before step \d+ of 150; go on with --resume$/m)
  t.notOk(existsSync(join(output, 'release')))
  const other = await cli.run([...args(output), '--resume', '--seed', '1'])
  t.equal(other.code, 2)
  t.match(other.stderr, /--key-file cannot be given with --seed/)
  const resumed = await cli.run([...args(output), '--resume'])
  t.equal(resumed.code, 0, resumed.stderr)
  t.ok(weights(output).equals(weights(unbroken)))
  t.equal(json(output, 'release/certificate.json').steps, 150)
})

t.test('flags of adapters where there are none', async (t) => {
  const args = ['train', '--train', settings.train, '--text', 'body', '--label', 'class', '--non-private']
  for (const [flag, value, name] of [
    ['--lora-rank', '2', 'loraRank'],
    ['--lora-alpha', '4', 'loraAlpha'],
    ['--lora-targets', 'attention,router', 'loraTargets'],
    ['--lora-layers', '0,1', 'loraLayers'],
  ] as const) {
    const { code, stderr } = await cli.run([...args, flag, value, '--output', file('never')])
    t.equal(code, 1)
    t.match(stderr, new RegExp(`^dp-moe: ${name}: expected trainable 'lora' with it, got none\\n$`))
  }
})

t.test('a tokenizer of the user', async (t) => {
  const fixture = new URL('../data/fixtures/word-piece.json', import.meta.url)
  writeFileSync(file('tokenizer.json'), JSON.stringify(JSON.parse(readFileSync(fixture, 'utf8')).tokenizer))
  const words = { greeting: 'hello world', review: 'the film is good' }
  const rows = Array.from({ length: 100 }, () => Object.entries(words).map(([label, text]) => ({ text, label }))).flat()
  const data = file('words.jsonl')
  writeFileSync(data, rows.map((row) => `${JSON.stringify(row)}\n`).join(''))
  const output = file('tokenized')
  const flags = ['--tokenizer', file('tokenizer.json'), '--non-private', '--steps', '20', '--output', output]
  const { code, stderr } = await cli.run(['train', '--train', data, '--json', ...flags, ...SMALL])
  t.equal(code, 0, stderr)
  for (const [label, text] of Object.entries(words)) {
    t.match(JSON.parse((await cli.run(['predict', output, '--text', text])).stdout), { label })
  }
  const privately = ['--tokenizer', file('tokenizer.json'), '--noise-multiplier', '9']
  const certified = file('tokenized-privately')
  const run = await cli.run(['train', '--train', data, '--output', certified, '--steps', '2', ...privately, ...SMALL])
  t.equal(run.code, 0, run.stderr)
  const { publicConstants, notCovered } = json(certified, 'release/certificate.json')
  const { model } = JSON.parse(readFileSync(fixture, 'utf8')).tokenizer
  const size = 1 + Math.max(...(Object.values(model.vocab) as number[]))
  t.match(publicConstants.tokenizer, { type: 'hugging-face', vocabularySize: size, sha256: /^[0-9a-f]{64}$/ })
  t.ok(notCovered.some((sentence: string) => sentence.startsWith('The tokenizer')))
})

t.test('where a failure came from is shown with --debug only', async (t) => {
  const args = ['train', '--train', file('none.csv'), '--non-private', '--output', file('never')]
  const { code, stderr } = await cli.run(args)
  t.equal(code, 1)
  t.match(stderr, /^dp-moe: Cannot read [^\n]*none\.csv: it does not exist[^\n]*\n$/)
  t.match((await cli.run([...args, '--debug'])).stderr, /none\.csv.*\n +at .*caused by: .*ENOENT/s)
})

/** Interrupts a run once its ledger holds a few steps. */
function interruptOnceRecorded(child: ChildProcess, output: string): void {
  const ledger = join(output, 'private/ledger.jsonl')
  const timer = setInterval(() => {
    if (!existsSync(ledger) || readFileSync(ledger, 'utf8').split('\n').length < 5) return
    clearInterval(timer)
    child.kill('SIGINT')
  }, 5)
  child.once('exit', () => clearInterval(timer))
}
