import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { Dataset } from '../../lib/data/index.js'
import { Device } from '../../lib/engine/device.js'
import { type TextBatch, textBatch } from '../../lib/models/text-batch.js'
import { createClassifier, parseClassifierConfig } from '../../lib/models/text-classifier.js'
import { accumulateGradients, sumSink } from '../../lib/nn/accumulate.js'
import { readLedger } from '../../lib/privacy/ledger.js'
import { train } from '../../lib/train/train.js'
import { mails } from '../cli/support/mails.js'
import { type Example, examples } from '../support/models.js'
import { type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { ledgerOf, tinyRun } from '../train/support/runs.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

/** A user: what they wrote. */
type User = readonly Example[]

const texts = examples([5, 9, 1, 17, 3, 0, 8, 12])
const users: User[] = [texts.slice(0, 3), texts.slice(3, 4), texts.slice(4, 8)]

function batchOf(device: Device, users: readonly User[]): TextBatch {
  const all = users.flat()
  const lengths = all.map(({ ids }) => ids.length)
  const data = new Dataset({
    ids: Int32Array.from(all.flatMap(({ ids }) => ids)),
    offsets: Int32Array.from([0, ...lengths.map((_, i) => lengths.slice(0, i + 1).reduce((a, b) => a + b))]),
    labels: Int32Array.from(all, ({ label }) => label),
    unitOffsets: Int32Array.from([0, ...users.map((_, i) => users.slice(0, i + 1).flat().length)]),
  })
  const units = users.map((_, index) => index)
  return textBatch(device, data.batch(units), data.labelsOf(units))
}

const common = { vocabularySize: 19, numLabels: 3, hiddenSize: 12, numExperts: 4 }
const configs = {
  mixture: { modelType: 'mixture-classifier', ...common },
  transformer: {
    modelType: 'switch-classifier',
    ...common,
    numLayers: 2,
    numAttentionHeads: 3,
    intermediateSize: 20,
    maxPositions: 64,
    balanceLoss: 0,
  },
}

for (const [name, config] of Object.entries(configs)) {
  t.test(`${name}: a user's gradient`, async (t) => {
    const module = createClassifier(device, parseClassifierConfig(config, name), 3)
    const loss = module.loss.bind(module)
    const subject: Subject<User, TextBatch> = { device, module, loss, batch: (users) => batchOf(device, users) }
    const random = stepRandom(device)
    const norms = await squaredNormsByParameter(subject, users, random)
    for (const [index, user] of users.entries()) {
      const gradients = await meanGradient(user)
      for (const [parameter, values] of norms) {
        const expected = gradients.get(parameter)!.reduce((sum, value) => sum + value * value, 0)
        const error = Math.abs(values[index]! - expected)
        t.ok(error <= 3e-3 * expected + 1e-9, `${parameter} of user ${index}: ${values[index]} for ${expected}`)
      }
    }
    const others = [examples([40, 2, 9], undefined, 9), users[1]!, examples([1], undefined, 5)]
    const moved = await squaredNormsByParameter(subject, others, random)
    for (const [parameter, values] of norms) {
      t.equal(moved.get(parameter)![1], values[1], `${parameter}: the same bits whoever else is in the batch`)
    }

    /** The mean gradient of a user's texts, each text alone in a batch. */
    async function meanGradient(user: User): Promise<Map<string, Float64Array>> {
      const sums = new Map<string, Float64Array>()
      for (const text of user) await accumulateGradients(device, [() => batchOf(device, [[text]])], loss, sumSink)
      for (const parameter of module.trainableParameters()) {
        const sum = (await parameter.gradient.data()) as Float32Array
        sums.set(
          parameter.name,
          Float64Array.from(sum, (value) => value / user.length),
        )
        parameter.gradient.fill(0)
      }
      return sums
    }
  })
}

t.test('sequences that do not divide the rows of their units are refused', async (t) => {
  const make = (offsets: number[], unitOffsets: number[]) =>
    new UnitLayout(device, Int32Array.of(0, 4, 7), Int32Array.of(0, 1), 'rows', {
      sequences: { offsets: Int32Array.from(offsets), unitOffsets: Int32Array.from(unitOffsets) },
    })
  t.equal(make([0, 2, 4, 7], [0, 2, 3]).perSequence.rows, 3)
  t.throws(() => make([0, 2, 5, 7], [0, 2, 3]), { code: 'INVALID_ARGUMENT' }, 'a sequence of two units')
  t.throws(() => make([0, 2, 4, 6], [0, 2, 3]), { code: 'INVALID_ARGUMENT' }, 'rows of no sequence')
  t.throws(() => make([0, 4, 2, 7], [0, 1, 3]), { code: 'INVALID_ARGUMENT' }, 'a sequence that ends before it starts')
})

t.test('train with a group column', async (t) => {
  const root = t.testdir()
  const data = join(root, 'mails.jsonl')
  const lines = mails(300).map((mail, i) => ({ ...mail, author: `author ${i % 60}` }))
  writeFileSync(data, lines.map((line) => `${JSON.stringify(line)}\n`).join(''))
  const output = join(root, 'run')
  const told: string[] = []
  const result = await train({
    ...tinyRun(data, output, { steps: 4, seed: 1, expectedBatchSize: 20 }),
    group: 'author',
    maxExamplesPerUser: 3,
    validation: 0.2,
    onMessage: ({ text }) => told.push(text),
  })
  const certificate = JSON.parse(readFileSync(join(output, 'release/certificate.json'), 'utf8'))
  t.equal(certificate.unit, 'user')
  t.match(certificate.publicConstants, { users: result.users!, maxExamplesPerUser: 3 })
  t.equal(certificate.publicConstants.examples, undefined)
  t.equal(certificate.delta, 1 / result.users!)
  t.equal((await readLedger(ledgerOf(output))).run.sampleRate, 20 / result.users!)
  t.equal(result.examples, 3 * result.users!)
  t.equal(result.validation!.examples % 5, 0, 'a user is on one side with all they wrote')
  t.equal(result.users! + result.validation!.examples / 5, 60)
  t.match(
    told.join('\n'),
    new RegExp(`${result.examples} examples of ${result.users!} users.*${2 * result.users!} more left out`),
  )

  const again = { ...tinyRun(data, join(root, 'other'), { steps: 1 }), group: 'nobody' }
  await t.rejects(train(again), /there is no column 'nobody'.*'author'/)
  await t.rejects(train({ ...again, group: undefined, maxExamplesPerUser: 3 }), /maxExamplesPerUser/)
  await t.rejects(train({ ...again, group: 'author', maxExamplesPerUser: 0 }), /maxExamplesPerUser/)
  writeFileSync(data, `${JSON.stringify({ ...lines[0], author: ' ' })}\n`)
  await t.rejects(train({ ...again, group: 'author' }), /:1: the group in column 'author' is missing/)
})
