import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createAccountant, dpSgd } from '../../lib/accounting/index.js'
import type { Certificate } from '../../lib/privacy/certificate.js'
import { readLedger } from '../../lib/privacy/ledger.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { ledgerOf, releasedWeights, tinyRun } from './support/runs.js'

const EXAMPLES = 300
const root = t.testdir()
const data = writeMails(root, 'mails.jsonl', EXAMPLES)
let runs = 0
const tiny = (more: Partial<TrainOptions> = {}) =>
  tinyRun(data, join(root, `run-${runs++}`), { steps: 4, seed: 1, ...more })

/** What makes the tiny run one without privacy. */
const plain = { noiseMultiplier: undefined, nonPrivate: true }

async function certified(options: TrainOptions): Promise<Certificate> {
  await train(options)
  return JSON.parse(readFileSync(join(options.output, 'release/certificate.json'), 'utf8'))
}

const epsilonOf = (relation: Certificate['relation'], { sampleRate, steps, delta, noiseMultiplier }: Certificate) =>
  createAccountant('pld', relation)
    .compose(dpSgd(noiseMultiplier, sampleRate, steps))
    .epsilon(delta).epsilon

t.test('the certificate says what was done, N where it is public', async (t) => {
  const zeroOut = await certified(tiny({ sampleRate: 0.1, maxGradNorm: 0.7, clipping: 'per-layer', maxLength: 5 }))
  t.match(zeroOut, {
    relation: 'zero-out',
    sampleRate: 0.1,
    expectedBatchSize: 60,
    maxGradNorm: 0.7,
    clipping: 'per-layer',
    delta: 1 / EXAMPLES,
    seeded: true,
    publicConstants: { examples: EXAMPLES, labels: ['ham', 'spam'], labelsStated: false, maxLength: 5 },
  })
  t.equal(zeroOut.epsilon, epsilonOf('zero-out', zeroOut))

  const split = await certified(tiny({ validation: 0.2 }))
  t.equal(split.publicConstants.validationFraction, 0.2)

  const replaceOne = await certified(tiny({ relation: 'replace-one', clipping: 'automatic', targetDelta: 1e-4 }))
  t.match(replaceOne, { clipping: 'automatic', delta: 1e-4, publicConstants: { examples: EXAMPLES } })
  t.equal(replaceOne.epsilon, epsilonOf('replace-one', replaceOne))
  t.ok(replaceOne.epsilon > epsilonOf('zero-out', replaceOne))
})

t.test('under add-or-remove-one the release does not depend on N', async (t) => {
  const strict = {
    relation: 'add-or-remove-one',
    sampleRate: 0.2,
    expectedBatchSize: 50,
    targetDelta: 1e-4,
    labels: ['spam', 'ham'],
  } as const
  const certificates: Certificate[] = []
  for (const count of [EXAMPLES, EXAMPLES - 1]) {
    const options = tiny({ ...strict, train: writeMails(root, `${count}.jsonl`, count) })
    certificates.push(await certified(options))
    const config = readFileSync(join(options.output, 'release/config.json'), 'utf8')
    t.notMatch(config + JSON.stringify(certificates.at(-1)), new RegExp(`[^\\d.]${count}[^\\d.]`))
  }
  const [first, second] = certificates.map((certificate) => ({ ...certificate, ledgerHash: '' }))
  t.same(first, second)
  t.match(first, { relation: 'add-or-remove-one', delta: 1e-4, publicConstants: { labelsStated: true } })
  t.notOk('examples' in first!.publicConstants)
  for (const name of ['sampleRate', 'expectedBatchSize', 'targetDelta', 'steps'] as const) {
    const options = tiny({ ...strict, [name]: undefined })
    await t.rejects(train(options), { code: 'INVALID_ARGUMENT', message: new RegExp(`expected ${name}; `) })
    t.notOk(existsSync(options.output))
  }
})

t.test('what must change the weights does, and what must not does not', async (t) => {
  const weightsWith = async (more: Partial<TrainOptions>) => {
    const options = tiny(more)
    await train(options)
    return releasedWeights(options.output)
  }
  const base = await weightsWith({})
  for (const same of [{}, { threads: 2 }, { checkpointEvery: 1 }, { validation: data }, { targetDelta: 1e-5 }]) {
    t.ok((await weightsWith(same)).equals(base), JSON.stringify(same))
  }
  const changes: Partial<TrainOptions>[] = [
    { seed: 2 },
    { learningRate: 1 },
    { maxGradNorm: 0.1 },
    { clipping: 'automatic' },
    { expectedBatchSize: 61 },
    { sampleRate: 0.3 },
    { noiseMultiplier: 2 },
    { maxLength: 3 },
    { validation: 0.2 },
    { steps: 5 },
    { labels: ['spam', 'ham'] },
  ]
  for (const change of changes) t.notOk((await weightsWith(change)).equals(base), JSON.stringify(change))
})

t.test('a key file: replayable, another key gives other weights', async (t) => {
  const results: Buffer[] = []
  for (const byte of [1, 1, 2]) {
    const keyFile = join(root, `key-${byte}`)
    writeFileSync(keyFile, Buffer.alloc(32, byte).toString('hex'))
    const options = tiny({ seed: undefined, keyFile })
    const { seeded, notCovered } = await certified(options)
    t.equal(seeded, false)
    t.ok(notCovered.some((sentence) => sentence.startsWith('The key file')))
    t.equal((await readLedger(ledgerOf(options.output))).run.key, 'file')
    results.push(releasedWeights(options.output))
  }
  t.ok(results[0]!.equals(results[1]!))
  t.notOk(results[0]!.equals(results[2]!))
})

t.test('checkpoints are made as often as asked', async (t) => {
  const options = tiny({ steps: 7, checkpointEvery: 3 })
  await train(options)
  t.same(readdirSync(join(options.output, 'private/checkpoints')).sort(), ['step-0000000006', 'step-0000000007'])
})

t.test('a run that cannot make its first step leaves nothing', async (t) => {
  for (const [more, message] of [
    [{ model: { ...tiny().model, expertsPerToken: 9 } }, /expertsPerToken, got 9/],
    [{ maxGradNorm: 1e300 }, /for maxGradNorm, got 1e\+300/],
    [{ maxGradNorm: 2.5e38, noiseMultiplier: 2 }, /for maxGradNorm, got 2\.5e\+38/],
    [{ expectedBatchSize: 1e300, sampleRate: 0.2 }, /for expectedBatchSize, got 1e\+300/],
    [{ expectedBatchSize: 1e-60, sampleRate: 0.2 }, /for expectedBatchSize, got 1e-60/],
    [{ threads: 100_000 }, /threads, got 100000/],
    [{ labels: ['spam', 'ham', 'ham'] }, /different names for labels/],
    [{ relation: 'replace-one', validation: 0.2 }, /validation: expected a file with relation replace-one/],
  ] as const) {
    const kinds = 'maxGradNorm' in more || 'expectedBatchSize' in more ? [{}] : [{}, plain]
    for (const kind of kinds) {
      const options = tiny({ ...more, ...kind } as Partial<TrainOptions>)
      await t.rejects(train(options), { code: 'INVALID_ARGUMENT', message })
      t.notOk(existsSync(options.output), `${message}: nothing is left`)
    }
  }
})

t.test('an option that does not exist is refused, not ignored; paths must be there', async (t) => {
  const refused = (options: object, message: RegExp) =>
    t.rejects(train(options as TrainOptions), { code: 'INVALID_ARGUMENT', message })
  await refused({ ...tiny(), relaton: 'replace-one' }, /no option 'relaton'; the options are .*relation/)
  await refused({ ...tiny(), train: undefined }, /Expected a path for train, got undefined/)
  await refused({ ...tiny(), output: undefined }, /Expected a path for output, got undefined/)
})

t.test('a label that is unknown', async (t) => {
  const validation = join(root, 'unknown.csv')
  writeFileSync(validation, 'text,label\nmeeting,ham\nwhat,news\n')
  for (const [more, message] of [
    [{ validation }, /unknown\.csv:3: the label 'news' is unknown/],
    [{ labels: ['ham', 'eggs'] }, /mails\.jsonl:1: the label 'spam' is unknown; the known labels are 'ham', 'eggs'/],
  ] as const) {
    const options = tiny(more)
    await t.rejects(train(options), { code: 'DATA_FORMAT', message })
    t.notOk(existsSync(options.output))
  }
})

t.test('a text of a million words among the others', async (t) => {
  const long = join(root, 'long.jsonl')
  const words = Array.from({ length: 1_000_000 }, (_, i) => `w${i}`).join(' ')
  writeFileSync(long, `${readFileSync(data, 'utf8')}${JSON.stringify({ text: words, label: 'spam' })}\n`)
  for (const more of [{}, { maxLength: 1_000_000, maxTokensPerMicrobatch: 64 }]) {
    t.match(await certified(tiny({ train: long, ...more })), { steps: 4, publicConstants: { examples: EXAMPLES + 1 } })
  }
})

t.test('a run that diverges ends with an error, and releases nothing', async (t) => {
  for (const kind of [{}, plain]) {
    const options = tiny({ learningRate: 3e39, steps: 10, ...kind } as Partial<TrainOptions>)
    await t.rejects(train(options), { code: 'INVALID_ARGUMENT', message: /no longer finite after \d+ steps .*lower/ })
    t.notOk(existsSync(join(options.output, 'release')))
    t.same(readdirSync(join(options.output, 'private/checkpoints')), [])
  }
})
