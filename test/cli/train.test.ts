import { once } from 'node:events'
import {
  copyFileSync,
  cpSync,
  existsSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { refused, TestCli } from './support/cli.js'
import { mails, SMALL, writeMails } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-train-'))
const file = (name: string) => join(folder, name)
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const train = writeMails(folder, 'train.jsonl', 400)
const held = writeMails(folder, 'held.jsonl', 100)
const run = file('private-run')
const plain = file('plain-run')
const small = ['train', '--train', train, ...SMALL]

t.test('train --json: one object, a release and what stays private', async (t) => {
  const args = [...small, '--validation', '0.25', '--target-epsilon', '8', '--steps', '30', '--output', run, '--json']
  const { code, stdout, stderr } = await cli.run(args)
  t.equal(code, 0, stderr)
  const result = JSON.parse(stdout)
  t.same(Object.keys(result), [
    'output',
    'private',
    'examples',
    'steps',
    'seconds',
    'epsilon',
    'delta',
    'noiseMultiplier',
    'validation',
  ])
  t.match(result, { output: run, private: true, steps: 30, validation: { accuracy: Number, loss: Number } })
  t.equal(result.examples + result.validation.examples, 400)
  t.ok(result.epsilon <= 8 && result.epsilon > 7.9)
  t.equal(result.delta, 1 / result.examples)
  t.match(stderr, /training: step 30 of 30, loss /)
  t.same(readdirSync(join(run, 'release')).sort(), ['certificate.json', 'config.json', 'model.safetensors'])
  const certificate = JSON.parse(readFileSync(join(run, 'release/certificate.json'), 'utf8'))
  t.match(certificate, {
    epsilon: result.epsilon,
    delta: result.delta,
    steps: 30,
    noiseMultiplier: result.noiseMultiplier,
  })
  const { stdout: account } = await cli.run(['account', '--ledger', run, '--json'])
  t.match(JSON.parse(account), { epsilon: result.epsilon, steps: 30, plannedSteps: 30, seeded: false })
})

t.test('train for people: a table, and a warning where delta is above 1/N', async (t) => {
  const budget = ['--noise-multiplier', '1', '--target-delta', '0.1', '--steps', '5']
  const { code, stdout, stderr } = await cli.run([...small, ...budget, '--seed', '1', '--output', file('people')])
  t.equal(code, 0, stderr)
  t.match(stdout, /^model +.*people\/release$/m)
  t.match(stdout, /^privacy +eps \S+ at delta 0\.1, noise multiplier 1$/m)
  t.match(stdout, /^validation +none$/m)
  t.match(stdout, /^training +5 steps on 400 examples in /m)
  t.match(stderr, /^warning: delta 0\.1 is larger than 1 \/ N/m)
  t.match(stderr, /^warning: NOT private: who knows or guesses --seed/m)
})

t.test('train --non-private learns what is easy; eval and predict use the run or its release', async (t) => {
  const args = [...small, '--non-private', '--epochs', '30', '--validation', held, '--output', plain, '--json']
  const { code, stdout, stderr } = await cli.run(args)
  t.equal(code, 0, stderr)
  const result = JSON.parse(stdout)
  t.match(result, { private: false, epsilon: null, delta: null, noiseMultiplier: null, examples: 400 })
  t.ok(result.validation.accuracy > 0.95, `accuracy ${result.validation.accuracy}`)

  for (const model of [plain, join(plain, 'release')]) {
    const evaluated = await cli.run(['eval', model, '--data', held, '--json'])
    t.match(evaluated, { code: 0, stderr: '' })
    t.same(Object.keys(JSON.parse(evaluated.stdout)), ['accuracy', 'examples', 'loss'])
    t.same(JSON.parse(evaluated.stdout), result.validation)
  }
  t.match((await cli.run(['eval', plain, '--data', held])).stdout, /^accuracy +\S+ %\nloss +\S+\nexamples +100\n$/)

  const unnamed = file('held.txt')
  copyFileSync(held, unnamed)
  const stated = await cli.run(['eval', plain, '--data', unnamed, '--format', 'jsonl', '--json'])
  t.same(JSON.parse(stated.stdout), result.validation)
  refused(t, await cli.run(['eval', plain, '--data', unnamed]), 1, /state its format/)
  refused(t, await cli.run(['account', '--ledger', plain]), 1, /is not private: it has no ledger/)

  const one = await cli.run(['predict', plain, '--text', 'winner cheap prize'])
  t.match(JSON.parse(one.stdout), { label: 'spam', probabilities: { ham: Number, spam: Number } })
  t.equal((await cli.run(['predict', plain, '--text', 'winner cheap prize', '--json'])).stdout, one.stdout)
})

t.test('predict --logits: the scores whose softmax are the probabilities', async (t) => {
  const input = readFileSync(held, 'utf8')
  type Answer = { label: string; logits: Record<string, number>; probabilities: Record<string, number> }
  const answers = async (...args: string[]) => {
    const { code, stdout, stderr } = await cli.run(['predict', plain, '--json', ...args], { input })
    t.match({ code, stderr }, { code: 0, stderr: '' })
    return (JSON.parse(stdout) as { predictions: Answer[] }).predictions
  }
  const expected = await answers()
  const scored = await answers('--logits')
  t.equal(scored.length, 100)
  let largest = 0
  for (const [i, { label, logits, ...rest }] of scored.entries()) {
    t.same(rest, {})
    const { label: same, probabilities } = expected[i]!
    const total = Math.exp(logits.ham!) + Math.exp(logits.spam!)
    t.equal(label, same)
    t.ok(Math.abs(Math.exp(logits.spam!) / total - probabilities.spam!) < 1e-5, `line ${i}`)
    largest = Math.max(largest, Math.abs(total - 1))
  }
  t.ok(largest > 0.01, 'they are not normalised')
  const one = await cli.run(['predict', plain, '--logits', '--text', 'winner cheap prize'])
  t.match(JSON.parse(one.stdout), { label: 'spam', logits: { ham: Number, spam: Number } })
})

t.test('predict on standard input: a line for a line, in order, as they come', async (t) => {
  const input = readFileSync(held, 'utf8')
  const { code, stdout, stderr } = await cli.run(['predict', plain], { input })
  t.match({ code, stderr }, { code: 0, stderr: '' })
  const lines = stdout
    .trimEnd()
    .split('\n')
    .map((line) => JSON.parse(line))
  t.same(
    lines.map(({ label }) => label),
    mails(100).map(({ label }) => label),
  )
  t.ok(lines.every(({ probabilities }) => Math.abs(probabilities.ham + probabilities.spam - 1) < 1e-5))
  const whole = await cli.run(['predict', plain, '--json'], { input })
  t.same(JSON.parse(whole.stdout), { predictions: lines })

  const conversation = cli.run(['predict', plain, '--text-column', 'body'], {
    async started(child) {
      for (let i = 0; i < 2; i++) {
        child.stdin!.write('{"body": "lunch meeting"}\n')
        t.match(String(await once(child.stdout!, 'data')), /"label":"ham"/, 'answered before the input ends')
      }
      child.stdin!.end()
    },
  })
  t.match(await conversation, { code: 0, stderr: '' })
})

t.test('predict: a bad line is named, after the answers to those before it', async (t) => {
  const input = `${readFileSync(held, 'utf8').split('\n').slice(0, 3).join('\n')}\n{"text": \n{"text": "late"}\n`
  const { code, stdout, stderr } = await cli.run(['predict', plain], { input })
  t.equal(code, 1)
  t.equal(stdout.trimEnd().split('\n').length, 3)
  t.match(stderr, /^dp-moe: standard input:4: the line is not JSON[^\n]*\n$/)
  refused(t, await cli.run(['predict', plain, '--json'], { input }), 1, /standard input:4/)
  refused(t, await cli.run(['predict', plain], { input: '' }), 1, /standard input: the file is empty/)
  refused(
    t,
    await cli.run(['predict', plain], { input: '{"txt": "a"}\n' }),
    1,
    /standard input:1: there is no column 'text'/,
  )
})

t.test('a reader that stops early ends predict quietly', async (t) => {
  const input = readFileSync(held, 'utf8').repeat(300)
  const finished = await cli.run(['predict', plain], {
    input,
    started: (child) => child.stdout!.once('data', () => child.stdout!.destroy()),
  })
  t.match(finished, { code: 0, stderr: '' })
})

t.test('a text of a million words', async (t) => {
  const long = file('long.jsonl')
  writeFileSync(long, `${JSON.stringify({ text: 'prize winner '.repeat(500_000), label: 'spam' })}\n`)
  const { code, stdout } = await cli.run(['eval', plain, '--data', long, '--json'])
  t.equal(code, 0)
  t.equal(JSON.parse(stdout).examples, 1)
})

t.test('evaluation data that is wrong: one line, exit code 1', async (t) => {
  const wrong = (name: string, content: string) => {
    writeFileSync(file(name), content)
    return file(name)
  }
  for (const [model, data, says] of [
    [
      plain,
      wrong('unknown.csv', 'text,label\na,spam\nb,news\n'),
      /unknown\.csv:3: the label 'news' is unknown; .*'ham', 'spam'/,
    ],
    [plain, file('none.csv'), /none\.csv: it does not exist/],
    [plain, wrong('columns.csv', 'body,label\na,spam\n'), /columns\.csv:1: there is no column 'text'/],
    [file('nowhere'), held, /nowhere holds no model/],
    [folder, held, /holds no model/],
  ] as const) {
    await t.test(String(says), async (t) => refused(t, await cli.fail(t, ['eval', model, '--data', data]), 1, says))
  }
})

t.test('a model file that is damaged or foreign: one line, exit code 1', async (t) => {
  const damaged = (name: string, damage: (path: string) => void) => {
    cpSync(join(plain, 'release'), file(name), { recursive: true })
    damage(join(file(name), 'model.safetensors'))
    return file(name)
  }
  const header = Buffer.alloc(16)
  header.writeBigUInt64LE(2n ** 63n)
  for (const model of [
    damaged('truncated', (path) => truncateSync(path, 1000)),
    damaged('empty-model', (path) => truncateSync(path, 0)),
    damaged('long-header', (path) => writeFileSync(path, header)),
    damaged('foreign', (path) => copyFileSync(held, path)),
    damaged('missing', (path) => rmSync(path)),
    damaged('config', (path) => writeFileSync(join(path, '../config.json'), '{')),
    damaged('other-config', (path) => writeFileSync(join(path, '../config.json'), '{"modelType": "other"}')),
  ]) {
    await t.test(model, async (t) =>
      refused(t, await cli.fail(t, ['predict', model, '--text', 'a']), 1, /dp-moe-train-/),
    )
  }
})

t.test('resume: an edited ledger, other flags and a finished run are refused', async (t) => {
  const flags = [...small, '--validation', '0.25', '--target-epsilon', '8', '--steps', '30', '--resume']
  const edited = file('edited')
  cpSync(run, edited, { recursive: true })
  const ledger = join(edited, 'private/ledger.jsonl')
  writeFileSync(ledger, readFileSync(ledger, 'utf8').replace('"step":7', '"step":8'))
  for (const [args, says] of [
    [[...flags, '--output', edited], /ledger\.jsonl, line 9 was changed/],
    [[...flags, '--output', run, '--learning-rate', '1'], /configuration differs|complete/],
    [[...flags, '--output', run], /complete; there is nothing to resume/],
    [[...flags, '--output', file('never')], /never holds no run to resume/],
  ] as const) {
    const { code, stdout, stderr } = await cli.run(args)
    t.match({ code, stdout }, { code: 1, stdout: '' })
    t.match(stderr.trimEnd().split('\n').at(-1), says)
  }
  t.notOk(existsSync(file('never')))
})

t.test('a run that exists is kept; --overwrite replaces it', async (t) => {
  const args = [...small, '--target-epsilon', '8', '--steps', '2', '--output', file('again')]
  t.equal((await cli.run(args)).code, 0)
  const before = readFileSync(join(file('again'), 'private/ledger.jsonl'), 'utf8')
  const { code, stderr } = await cli.run(args)
  t.equal(code, 1)
  t.match(stderr, /again is not empty .*--resume.*--overwrite/)
  t.equal(readFileSync(join(file('again'), 'private/ledger.jsonl'), 'utf8'), before)
  t.equal((await cli.run([...args, '--overwrite'])).code, 0)
  t.not(readFileSync(join(file('again'), 'private/ledger.jsonl'), 'utf8'), before)
})

t.test('everything from a configuration file', async (t) => {
  const config = file('run.yaml')
  const lines = [`train: ${train}`, 'target-epsilon: 8', 'steps: 4', 'threads: 1', `output: ${file('configured')}`]
  writeFileSync(config, [...lines, 'model: {vocabularySize: 1024, hiddenSize: 16, numExperts: 4}'].join('\n'))
  const { code, stdout, stderr } = await cli.run(['train', '--config', config, '--steps', '3', '--json'])
  t.equal(code, 0, stderr)
  t.match(JSON.parse(stdout), { steps: 3 })
  const { model } = JSON.parse(readFileSync(join(file('configured'), 'release/config.json'), 'utf8'))
  t.match(model, { vocabularySize: 1024, hiddenSize: 16, numExperts: 4 })
})
