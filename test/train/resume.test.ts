import assert from 'node:assert/strict'
import {
  appendFileSync,
  cpSync,
  existsSync,
  readdirSync,
  readFileSync,
  rmSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { createAccountant, dpSgd } from '../../lib/accounting/index.js'
import { addon } from '../../lib/engine/addon.js'
import { readLedger } from '../../lib/privacy/ledger.js'
import { formatEntry } from '../../lib/privacy/ledger-format.js'
import type { TrainMessage, TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { writeMails } from '../cli/support/mails.js'
import { lastCheckpoint, ledgerOf, lostSteps, releasedWeights, tinyRun } from './support/runs.js'

const STEPS = 12
const root = t.testdir()
const data = writeMails(root, 'mails.jsonl', 300)
const edited = join(root, 'edited.jsonl')
writeFileSync(edited, readFileSync(data, 'utf8').replace('prize', 'price'))
const tiny = (name: string, more: Partial<TrainOptions> = {}) =>
  tinyRun(data, join(root, name), { steps: STEPS, checkpointEvery: 4, ...more })

/** Trains until `steps` were made and then stops as Ctrl-C does. */
async function stopAfter(steps: number, options: TrainOptions): Promise<void> {
  const controller = new AbortController()
  const stopped = train({
    ...options,
    signal: controller.signal,
    onProgress: ({ step }) => {
      if (step === steps) controller.abort()
    },
  })
  await assert.rejects(stopped, {
    code: 'ABORTED',
    message: `Stopped before step ${steps} of ${STEPS}; go on with --resume`,
  })
}

const resume = (options: TrainOptions) => train({ ...options, resume: true })

const certificateOf = ({ output }: TrainOptions) =>
  JSON.parse(readFileSync(join(output, 'release/certificate.json'), 'utf8'))

/** A copy of a complete run that stopped before its release was in place. */
function withoutRelease(options: TrainOptions, name: string): TrainOptions {
  const copy = { ...options, output: join(root, name) }
  cpSync(options.output, copy.output, { recursive: true })
  rmSync(join(copy.output, 'release'), { recursive: true })
  return copy
}

/** Keeps a part of a ledger's last line: half of it, or nothing. */
function cutLastLine(path: string, kept: 0 | 0.5 = 0.5): void {
  const content = readFileSync(path)
  const start = content.lastIndexOf('\n', content.length - 2) + 1
  truncateSync(path, start + Math.floor(kept * (content.length - start)))
}

const damageNewest = ({ output }: TrainOptions) => {
  const checkpoints = join(output, 'private/checkpoints')
  truncateSync(join(checkpoints, readdirSync(checkpoints).sort().at(-1)!, 'tensors.safetensors'), 100)
}

t.test('stopped between steps: nothing is lost, whatever the key', async (t) => {
  const options = tiny('stopped')
  await stopAfter(6, options)
  const noted = join(options.output, 'private/configuration.json')
  for (const [change, what] of [
    [{ learningRate: 1 }, /The configuration differs from .* \(recipe\.learningRate: [\d.]+, now 1\); resume with/],
    [{ labels: ['ham', 'spam'] }, /\(task\.labelsStated: false, now true\)/],
  ] as const) {
    await t.rejects(resume({ ...options, ...change }), { code: 'INVALID_ARGUMENT', message: what })
  }
  for (const content of ['{', '[]', '1', 'null', '"x"', '{"a":[1]}', undefined]) {
    if (content === undefined) rmSync(noted)
    else writeFileSync(noted, content)
    await t.rejects(
      resume({ ...options, learningRate: 1 }),
      { message: /The configuration differs/ },
      content ?? 'none',
    )
  }
  writeFileSync(noted, '{}') // what decides are the fingerprints in ledger and checkpoints
  await t.rejects(resume({ ...options, seed: 1 }), { message: /The key differs/ })
  await t.rejects(resume({ ...options, train: edited }), { message: /The training data differs/ })
  const messages: TrainMessage[] = []
  await resume({ ...options, onMessage: (message) => messages.push(message) })
  t.match(messages.at(-1), { level: 'info', text: 'goes on from the checkpoint of step 6' })
  t.same(await lastCheckpoint(options.output), { nextStep: STEPS, updates: STEPS })
  t.equal(lostSteps(await readLedger(ledgerOf(options.output))), 0)
})

t.test('stopped between steps, a replayable run ends as the unbroken one, on more threads too', async (t) => {
  const attention = {
    modelType: 'switch-classifier',
    vocabularySize: 512,
    hiddenSize: 8,
    numLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 16,
    numExperts: 4,
    maxPositions: 64,
    dropout: 0.1,
  }
  for (const [name, more] of [
    ['mixture', {}],
    ['switch', { model: attention, maxLength: 8 }], // trained with Adam, whose moments must come back
  ] as const) {
    const unbroken = tiny(`${name}-unbroken`, { seed: 1, ...more })
    const stopped = { ...unbroken, output: join(root, `${name}-stopped`) }
    await train(unbroken)
    await stopAfter(6, stopped)
    await resume({ ...stopped, threads: 3 })
    t.ok(releasedWeights(stopped.output).equals(releasedWeights(unbroken.output)), name)
  }
})

t.test('stopped while it reads its data, or before its first step', async (t) => {
  const long = join(root, 'long.jsonl')
  const words = Array.from({ length: 100_000 }, (_, i) => `w${i}`).join(' ')
  writeFileSync(long, readFileSync(data, 'utf8') + `${JSON.stringify({ text: words, label: 'ham' })}\n`.repeat(3))
  const reading = tiny('reading', { train: long, signal: AbortSignal.abort() })
  await t.rejects(train(reading), { code: 'ABORTED', message: 'Stopped by its signal' })
  t.notOk(existsSync(reading.output))

  const controller = new AbortController()
  const options = tiny('before-its-first-step', { maxLength: 100_000 })
  const native = addon()
  const { randomKey } = native
  native.randomKey = () => {
    controller.abort() // the key is drawn when the data are read and the run is about to open
    return randomKey()
  }
  await t.rejects(train({ ...options, signal: controller.signal }), { code: 'ABORTED', message: /before step 0 of 12/ })
  native.randomKey = randomKey
  t.match(await resume(options), { steps: STEPS })
})

t.test('stopped after its last step, before its release', async (t) => {
  for (const [name, key] of [
    ['os', {}],
    ['seed', { seed: 2 }],
  ] as const) {
    const done = tiny(`${name}-done`, key)
    await train(done)
    const before = readFileSync(ledgerOf(done.output))
    const again = withoutRelease(done, `${name}-again`)
    const result = await resume(again)
    t.equal(result.steps, STEPS)
    t.ok(readFileSync(ledgerOf(again.output)).equals(before), 'nothing was spent')
    t.ok(releasedWeights(again.output).equals(releasedWeights(done.output)))
    t.same(certificateOf(again), certificateOf(done))
    await t.rejects(resume(again), { code: 'INVALID_ARGUMENT', message: /complete; there is nothing to resume/ })

    const damaged = withoutRelease(done, `${name}-damaged`)
    damageNewest(damaged)
    const warnings: string[] = []
    await train({
      ...damaged,
      resume: true,
      onMessage: ({ level, text }) => level === 'warning' && warnings.push(text),
    })
    const passedOver = /Passed over the checkpoint .*step-0000000012/
    const lost = /^goes on from the checkpoint of step 8; steps that were spent .* lost: 4$/
    t.match(warnings, name === 'seed' ? [/^NOT private/, passedOver] : [passedOver, lost])
    t.equal(warnings.length, 2, 'a seeded run loses nothing')
    t.ok(readFileSync(ledgerOf(damaged.output)).equals(before), 'nothing was spent')
    const isSame = releasedWeights(damaged.output).equals(releasedWeights(done.output))
    t.equal(isSame, name === 'seed', 'a seeded run redoes what was lost, the other one releases what it has')
  }
})

t.test('a torn end counts as a step: the certificate has the epsilon of all that were counted', async (t) => {
  for (const [name, key] of [
    ['torn-os', {}],
    ['torn-seed', { seed: 2 }],
  ] as const) {
    const done = tiny(name, key)
    const { epsilon } = await train(done)
    t.equal(epsilon, epsilonOf(STEPS))
    const torn = withoutRelease(done, `${name}-again`)
    cutLastLine(ledgerOf(torn.output))
    t.equal((await readLedger(ledgerOf(torn.output))).steps, STEPS + 1)
    const result = await resume(torn)
    t.match(result, { steps: STEPS + 1, epsilon: epsilonOf(STEPS + 1) })
    t.match(certificateOf(torn), { plannedSteps: STEPS, steps: STEPS + 1, epsilon: epsilonOf(STEPS + 1) })
    t.ok(epsilonOf(STEPS + 1) > epsilonOf(STEPS))
    t.ok(releasedWeights(torn.output).equals(releasedWeights(done.output)), 'no update was made for it')
  }
})

t.test('a torn segment counts as a step', async (t) => {
  const options = tiny('torn-segment')
  await stopAfter(6, options)
  const { hash } = await readLedger(ledgerOf(options.output))
  const { line } = formatEntry({ type: 'segment', segment: 2, checkpointStep: 6, software: 'dp-moe 0' }, hash)
  appendFileSync(ledgerOf(options.output), line.slice(0, 40))
  await resume(options)
  t.match(certificateOf(options), { plannedSteps: STEPS, steps: STEPS, epsilon: epsilonOf(STEPS) })
  t.same(await lastCheckpoint(options.output), { nextStep: STEPS, updates: STEPS - 1 })

  const spent = tiny('torn-segment-at-the-end')
  await train(spent)
  const again = withoutRelease(spent, 'torn-segment-again')
  cutLastLine(ledgerOf(again.output))
  await resume(again) // counts the torn end, begins a segment, ends
  cutLastLine(ledgerOf(again.output), 0)
  cutLastLine(ledgerOf(again.output))
  rmSync(join(again.output, 'release'), { recursive: true })
  await resume(again)
  t.match(certificateOf(again), { plannedSteps: STEPS, steps: STEPS + 2, epsilon: epsilonOf(STEPS + 2) })
})

t.test('a private run goes on as one, and another as it is', async (t) => {
  const isPrivate = tiny('private')
  await stopAfter(6, isPrivate)
  const { noiseMultiplier: _, ...free } = isPrivate
  await t.rejects(resume({ ...free, nonPrivate: true }), { message: /private is private and goes on only as that/ })
  await resume(isPrivate)

  const plain = { ...free, output: join(root, 'plain'), nonPrivate: true }
  await stopAfter(6, plain)
  await t.rejects(resume({ ...isPrivate, output: plain.output }), { message: /plain has no ledger/ })
  await t.rejects(resume({ ...plain, train: writeMails(root, 'more.jsonl', 302) }), {
    message: /configuration differs/,
  })
  await t.rejects(resume({ ...plain, seed: 4 }), { message: /key differs/ })
  await resume(plain)
  await t.rejects(resume(plain), { message: /complete; there is nothing to resume/ })
  const unbroken = { ...plain, output: join(root, 'plain-unbroken') }
  await train(unbroken)
  t.ok(releasedWeights(plain.output).equals(releasedWeights(unbroken.output)))
})

t.test('a ledger or checkpoints that do not belong to the run', async (t) => {
  const options = tiny('mixed')
  await stopAfter(6, options)
  const early = readFileSync(ledgerOf(options.output))
  const copy = { ...options, output: join(root, 'rolled-back') }
  cpSync(options.output, copy.output, { recursive: true })
  await resume(copy)
  rmSync(join(copy.output, 'release'), { recursive: true })
  writeFileSync(ledgerOf(copy.output), early)
  await t.rejects(resume(copy), { code: 'LEDGER_DAMAGED', message: /replaced by an older or another one/ })

  rmSync(ledgerOf(copy.output))
  await t.rejects(resume(copy), { code: 'INVALID_ARGUMENT', message: /has no ledger/ })
})

/** An upper bound on epsilon after so many steps of the tiny run, from an accountant of our own. */
function epsilonOf(steps: number): number {
  return createAccountant('pld', 'zero-out')
    .compose(dpSgd(1, 0.2, steps))
    .epsilon(1 / 300).epsilon
}
