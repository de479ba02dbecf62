import { once } from 'node:events'
import { existsSync, utimesSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout } from 'node:timers/promises'
import { Worker } from 'node:worker_threads'
import t from 'tap'
import { readLedger } from '../../lib/privacy/ledger.js'
import type { TrainOptions, TrainResult } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'
import { compileChild } from '../children/child.js'
import { writeMails } from '../cli/support/mails.js'
import { ledgerOf, releasedWeights, tinyRun } from './support/runs.js'

const root = t.testdir()
const script = compileChild('train-in-worker.ts', root)
const data = writeMails(root, 'mails.jsonl', 300)
const tiny = (name: string, more: Partial<TrainOptions> = {}) =>
  tinyRun(data, join(root, name), { seed: 6, steps: 20, ...more })

/** Starts a worker that trains; `ended` gives its result, `onStep` is called in this thread. */
function trainInWorker(options: TrainOptions, onStep: (step: number) => void = () => {}) {
  const worker = new Worker(script, { workerData: options, execArgv: [] })
  let result: TrainResult | undefined
  worker.on('message', (message: number | TrainResult) => {
    if (typeof message === 'number') onStep(message)
    else result = message
  })
  const ended = once(worker, 'exit').then(() => result!)
  return { worker, ended }
}

const unbroken = tiny('unbroken')
await train(unbroken)
const expected = releasedWeights(unbroken.output)

t.test('in a worker, while this thread does its own work', async (t) => {
  const options = tiny('worker')
  const turnsAtStep: number[] = []
  let turns = 0
  let isOver = false
  const { ended } = trainInWorker(options, () => turnsAtStep.push(turns))
  const over = ended.finally(() => {
    isOver = true
  })
  while (!isOver) {
    await setTimeout(1)
    turns++
  }
  t.match(await over, { steps: 20, private: true })
  t.equal(turnsAtStep.length, 20, 'every step was heard of')
  t.ok(new Set(turnsAtStep).size > 5, 'and this thread had its turns between them')
  t.ok(releasedWeights(options.output).equals(expected))
})

t.test('in two workers and this thread at once', async (t) => {
  const runs = ['first', 'second', 'main'].map((name) => tiny(name))
  const other = tiny('other', { seed: 7, threads: 2 })
  const workers = [runs[0]!, runs[1]!, other].map((options) => trainInWorker(options).ended)
  await Promise.all([...workers, train(runs[2]!)])
  for (const { output } of runs) t.ok(releasedWeights(output).equals(expected), output)
  t.notOk(releasedWeights(other.output).equals(expected))
})

t.test('two runs in one folder: one of them is refused', async (t) => {
  const steps = 1000 // so many that the first run is still under way
  const alone = tiny('alone', { steps })
  await train(alone)
  const options = tiny('one-folder', { steps })
  const { worker, ended } = trainInWorker(options)
  await once(worker, 'message')
  await t.rejects(train(options), { code: 'FILE_EXISTS' })
  await t.rejects(train({ ...options, overwrite: true }), { code: 'FILE_ACCESS', message: /is writing/ })
  await t.rejects(train({ ...options, resume: true }), { code: 'FILE_ACCESS', message: /is writing/ })
  t.match(await ended, { steps })
  t.ok(releasedWeights(options.output).equals(releasedWeights(alone.output)))
})

t.test('a worker that is terminated in the middle leaves a run that goes on', async (t) => {
  const options = tiny('terminated', { steps: 1000 })
  const { worker } = trainInWorker(options)
  await once(worker, 'message')
  await worker.terminate()
  const { steps, ended } = await readLedger(ledgerOf(options.output))
  t.ok(steps > 0 && !ended)
  t.notOk(existsSync(join(options.output, 'release')))

  const controller = new AbortController()
  const stop = () => controller.abort()
  const resumed = { ...options, resume: true, signal: controller.signal, onProgress: stop }
  await t.rejects(train(resumed), { code: 'FILE_ACCESS', message: /or was a worker thread, try again in 10 seconds/ })
  utimesSync(`${ledgerOf(options.output)}.lock`, 0, 0) // as it is after these seconds
  await t.rejects(train(resumed), { code: 'ABORTED', message: /Stopped before step \d+ of 1000/ })
  const again = tiny('after')
  await train(again)
  t.ok(releasedWeights(again.output).equals(expected), 'this process trains as ever')
})
