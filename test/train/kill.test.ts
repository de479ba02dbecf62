import { appendFileSync, cpSync, existsSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { type LedgerSummary, readLedger } from '../../lib/privacy/ledger.js'
import { formatEntry } from '../../lib/privacy/ledger-format.js'
import type { TrainOptions } from '../../lib/train/options.js'
import { compileChild, killAfter, startChild } from '../children/child.js'
import { writeMails } from '../cli/support/mails.js'
import {
  type ChildTalk,
  filesBelow,
  lastCheckpoint,
  ledgerOf,
  lostSteps,
  releasedWeights,
  talkOf,
  tinyRun,
} from './support/runs.js'

const STEPS = 120
const root = t.testdir()
const script = compileChild('train-run.ts', root)
const data = writeMails(root, 'mails.jsonl', 300)
const inRoot = (name: string) => join(root, name)

interface Kill {
  /** Whether a line of the child starts the clock. */
  readonly after: (line: string) => boolean
  readonly delay: number
}

/** Trains in a child until it ends or is killed. */
async function live(options: TrainOptions, { after, delay }: Kill = { after: () => false, delay: 0 }) {
  return talkOf(await killAfter(startChild(script, [JSON.stringify(options)]), delay, after))
}

/** A random instant while the child starts or resumes, or makes its first steps. */
function randomKill(isStarting: boolean): Kill {
  if (isStarting) return { after: () => true, delay: Math.random() * 500 }
  let steps = 1 + Math.floor(Math.random() * 12)
  return { after: (line) => /^\d+$/.test(line) && --steps === 0, delay: Math.random() * 20 }
}

/** The options with which a run goes on that was killed at any moment, even before it had begun. */
function goingOn(options: TrainOptions): TrainOptions {
  return existsSync(ledgerOf(options.output)) ? { ...options, resume: true } : { ...options, overwrite: true }
}

/** Leaves a part of the next entry behind the last one, as a machine does that stops while it writes. */
async function tear(output: string): Promise<void> {
  const { steps, hash, run } = await readLedger(ledgerOf(output))
  const { noiseMultiplier, sampleRate } = run
  const { line } = formatEntry({ type: 'step', step: steps, noiseMultiplier, sampleRate }, hash)
  appendFileSync(ledgerOf(output), line.slice(0, 1 + Math.floor(Math.random() * (line.length - 1))))
}

/** A run may be killed between the release of its model and the line that says so. */
function released({ output }: TrainOptions): boolean {
  return existsSync(join(output, 'release'))
}

/** Kills a run at `times` random instants, tearing the ledger now and then; returns what the children said. */
async function killOften(t: Test, options: TrainOptions, times: number): Promise<ChildTalk[]> {
  const talks: ChildTalk[] = []
  for (let round = 0; round < times; round++) {
    const talk = await live(goingOn(options), randomKill(round % 3 === 0))
    talks.push(talk)
    t.equal(talk.error, undefined, `round ${round} went on`)
    if (talk.result || released(options)) break
    if (!existsSync(ledgerOf(options.output))) continue
    const { steps } = await readLedger(ledgerOf(options.output))
    t.ok(steps > (talk.steps.at(-1) ?? -1), `round ${round}: ${steps} recorded, ${talk.steps.at(-1)} was the last made`)
    // A ledger with all its steps takes no further one, so none can be torn.
    if (round % 5 === 4 && steps < STEPS) await tear(options.output)
  }
  return talks
}

/** Lets a run end and checks what any ended run must be. */
async function end(t: Test, options: TrainOptions): Promise<{ talk: ChildTalk; summary: LedgerSummary }> {
  const talk = released(options) ? talkOf([]) : await live(goingOn(options))
  t.equal(talk.error, undefined)
  const summary = await readLedger(ledgerOf(options.output))
  t.equal(summary.ended, true)
  t.equal(summary.steps, STEPS, 'as many steps as planned')
  const certificate = JSON.parse(readFileSync(join(options.output, 'release/certificate.json'), 'utf8'))
  t.match(certificate, { steps: STEPS, plannedSteps: STEPS, ledgerHash: summary.hash })
  t.same(
    filesBelow(options.output).filter((path) => /tmp$|lock|guard/.test(path)),
    [],
    'nothing half written is left',
  )
  return { talk, summary }
}

t.jobs = 2

t.test('replayable keys: whenever it was killed, the weights are those of the unbroken run', async (t) => {
  const keyFile = inRoot('key')
  writeFileSync(keyFile, Buffer.alloc(32, 0xa7))
  for (const [name, key, kills] of [
    ['seed', { seed: 3 }, 20],
    ['file', { keyFile }, 5],
  ] as const) {
    const unbroken = tinyRun(data, inRoot(`${name}-unbroken`), { steps: STEPS, ...key })
    t.ok((await live(unbroken)).result)
    const options = { ...unbroken, output: inRoot(name) }
    const talks = await killOften(t, options, kills)
    const hasCheckpoint = filesBelow(join(options.output, 'private/checkpoints')).some(
      (path) => !/dp-moe-tmp/.test(path),
    )
    const { talk, summary } = await end(t, options)
    const [first = STEPS] = talk.steps
    t.ok(hasCheckpoint ? first > 0 : first === 0, `the last life began at ${first}, checkpoint: ${hasCheckpoint}`)
    t.equal(summary.segments.length, 1, 'no step was spent twice')
    t.ok(releasedWeights(options.output).equals(releasedWeights(unbroken.output)), `${name}: bit-equal`)
    t.ok(talks.filter(({ steps }) => steps.length > 0).length > kills / 3, 'many were killed while making steps')
  }
  const key = Buffer.alloc(32, 0xa7)
  for (const path of filesBelow(inRoot('file'))) t.notOk(holds(path, key.toString('hex')), `no key in ${path}`)
})

t.test('a key of the operating system: lost steps stay spent, and what is redone has other noise', async (t) => {
  const options = tinyRun(data, inRoot('os'), { steps: STEPS })
  const talks = await killOften(t, options, 8)
  t.ok(existsSync(ledgerOf(options.output)))
  const other = { ...options, output: inRoot('os-again') }
  cpSync(options.output, other.output, { recursive: true })
  for (const run of [options, other]) {
    const { talk, summary } = await end(t, run)
    talks.push(talk)
    const lost = lostSteps(summary)
    t.ok(lost > 0)
    const { updates, nextStep } = await lastCheckpoint(run.output)
    t.same({ updates, nextStep }, { updates: STEPS - lost, nextStep: STEPS }, `${lost} were lost, and are counted`)
  }
  t.notOk(releasedWeights(options.output).equals(releasedWeights(other.output)), 'twice from there: other weights')
  const keys = talks.flatMap((talk) => talk.keys)
  t.equal(new Set(keys).size, talks.filter(({ keys }) => keys.length > 0).length, 'a key for each life')
  for (const path of [options.output, other.output].flatMap(filesBelow)) {
    t.notOk(
      keys.some((key) => holds(path, key)),
      `no key in ${path}`,
    )
  }
})

t.test('killed while it ends and releases its model', async (t) => {
  const begun = tinyRun(data, inRoot('begun'), { steps: STEPS, seed: 5 })
  await live(begun, { after: (line) => line === `${STEPS - 10}`, delay: 0 })
  const unbroken = { ...begun, output: inRoot('begun-unbroken') }
  cpSync(begun.output, unbroken.output, { recursive: true })
  await end(t, unbroken)
  for (let round = 0; round < 6; round++) {
    const options = { ...begun, output: inRoot('ending') }
    rmSync(options.output, { recursive: true, force: true })
    cpSync(begun.output, options.output, { recursive: true })
    await live(goingOn(options), { after: (line) => line === `${STEPS - 1}`, delay: Math.random() * 30 })
    if (released(options)) {
      t.match(await live(goingOn(options)), { error: /is complete; there is nothing to resume/ })
    } else {
      await end(t, options)
    }
    t.ok(releasedWeights(options.output).equals(releasedWeights(unbroken.output)), `round ${round}`)
  }
})

/** Whether a file holds a key's bytes, as they are or as text. */
function holds(path: string, hex: string): boolean {
  const key = Buffer.from(hex, 'hex')
  const content = readFileSync(path)
  const text = content.toString('latin1').toLowerCase()
  return content.includes(key) || text.includes(hex) || content.includes(key.toString('base64').replace(/=+$/, ''))
}
