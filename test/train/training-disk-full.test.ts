import { existsSync, mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { readLedger } from '../../lib/privacy/ledger.js'
import { CheckpointStore } from '../../lib/train/checkpoint.js'
import { train } from '../../lib/train/train.js'
import { canMount, compileChild, linesOf, mounted, startChild } from '../children/child.js'
import { writeMails } from '../cli/support/mails.js'
import { type ChildTalk, filesBelow, ledgerOf, releasedWeights, talkOf, tinyRun } from './support/runs.js'

const STEPS = 60
const root = t.testdir({ disk: {} })
const disk = join(root, 'disk')
const script = compileChild('train-run.ts', root)
const data = writeMails(root, 'mails.jsonl', 300)
const options = tinyRun(data, join(disk, 'run'), { steps: STEPS, seed: 8 })

/** Trains on a disk with a limit, then again without one; both talks, and where copies of both states of the run lie. */
async function trainTwice(limit: string): Promise<{ first: ChildTalk; second: ChildTalk; copies: string }> {
  const copies = join(root, limit)
  mkdirSync(copies)
  const twice = `"$@" '${JSON.stringify(options)}'; test -e '${disk}/run' && cp -r '${disk}/run' '${copies}/stopped'
    mount -o remount,size=64m,nr_inodes=10000 '${disk}'
    "$@" '${JSON.stringify({ ...options, resume: true })}'; test -e '${disk}/run' && cp -r '${disk}/run' '${copies}/resumed'`
  const said = await linesOf(startChild(script, [], [...mounted(disk, limit), 'sh', '-c', twice, 'sh']))
  const again = said.lastIndexOf('"ready"')
  return { first: talkOf(said.slice(0, again)), second: talkOf(said.slice(again)), copies }
}

async function checkStopped(t: Test, first: ChildTalk, output: string): Promise<void> {
  t.equal(first.code, 'DISK_FULL')
  t.match(first.error, /Cannot write .*: the disk is full\. Free some space/)
  const { steps } = await readLedger(ledgerOf(output))
  const made = (first.steps.at(-1) ?? -1) + 1
  t.ok(steps === made || steps === made + 1, `${steps} steps are recorded, ${made} were said`)
  const { checkpoint, damaged } = await new CheckpointStore(join(output, 'private/checkpoints')).load()
  await checkpoint?.close()
  t.same(damaged, [])
  t.equal(checkpoint?.facts.nextStep ?? 0, made - (made % 5), 'the last checkpoint that was due and fitted')
  t.same(
    filesBelow(output).filter((path) => /tmp$|lock|guard|release/.test(path)),
    [],
    'no partial file',
  )
}

const skip = canMount(disk) ? false : 'mounting needs root or user namespaces'

t.test('training on a disk that fills up stops, and goes on once there is space', { skip }, async (t) => {
  const unbroken = { ...options, output: join(root, 'unbroken') }
  await train(unbroken)
  let begun = 0
  const limits = ['size=8k', 'size=12k', 'size=16k', 'size=24k', 'size=48k', 'size=64k', 'nr_inodes=12', 'nr_inodes=16']
  for (const limit of limits) {
    await t.test(limit, async (t) => {
      const { first, second, copies } = await trainTwice(limit)
      if (first.steps.length === 0) {
        t.equal(first.code, 'DISK_FULL')
        t.notOk(existsSync(join(copies, 'stopped')), 'a run that cannot start leaves nothing')
        t.match(second.error, /holds no run to resume/)
        return
      }
      begun++
      await checkStopped(t, first, join(copies, 'stopped'))
      t.equal(second.error, undefined)
      t.equal((await readLedger(ledgerOf(join(copies, 'resumed')))).steps, STEPS)
      t.ok(releasedWeights(join(copies, 'resumed')).equals(releasedWeights(unbroken.output)), 'bit-equal')
    })
  }
  t.ok(begun >= 4 && begun < limits.length, `${begun} of ${limits.length} had begun`)
})
