import type { ChildProcess } from 'node:child_process'
import { mkdirSync, mkdtempSync, readdirSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { canMount, smallDisk } from '../children/child.js'
import { TestCli } from './support/cli.js'
import { SMALL, writeMails } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-interrupt-'))
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

const train = writeMails(folder, 'train.jsonl', 400)
const args = (output: string, steps: number) => [
  ...[
    'train',
    '--train',
    train,
    '--target-epsilon',
    '8',
    '--steps',
    String(steps),
    '--output',
    output,
    '--json',
    ...SMALL,
  ],
]

/** Sends a signal once the run has recorded steps. */
function whileTraining(output: string, act: (child: ChildProcess) => void): (child: ChildProcess) => void {
  return (child) => {
    const timer = setInterval(() => {
      try {
        if (!readdirSync(join(output, 'private')).includes('ledger.jsonl')) return
      } catch {
        return
      }
      clearInterval(timer)
      setTimeout(() => act(child), 300)
    }, 20)
    child.once('exit', () => clearInterval(timer))
  }
}

t.test('SIGINT stops after the step with a checkpoint, exit code 130; --resume goes on', async (t) => {
  const output = join(folder, 'stopped')
  const steps = 3000
  const started = whileTraining(output, (child) => child.kill('SIGINT'))
  const { code, signal, stdout, stderr } = await cli.run(args(output, steps), { started })
  t.match({ code, signal, stdout }, { code: 130, signal: null, stdout: '' })
  t.match(stderr, /^Stopping after this step, with a checkpoint/m)
  t.match(stderr, /^dp-moe: Stopped before step \d+ of 3000; go on with --resume$/m)
  t.notSame(readdirSync(join(output, 'private/checkpoints')), [])
  const spent = JSON.parse((await cli.run(['account', '--ledger', output, '--delta', '1e-3', '--json'])).stdout)
  t.ok(spent.steps > 0 && spent.steps < steps && spent.plannedSteps === steps)

  const resumed = await cli.run([...args(output, steps), '--resume'])
  t.equal(resumed.code, 0, resumed.stderr)
  t.match(JSON.parse(resumed.stdout), { steps })
  t.ok(JSON.parse(resumed.stdout).epsilon <= 8)
})

t.test('a second SIGINT ends the process at once', async (t) => {
  const output = join(folder, 'killed')
  const started = whileTraining(output, (child) => {
    child.stderr!.on('data', (piece: Buffer) => {
      if (piece.includes('Stopping')) child.kill('SIGINT')
    })
    child.kill('SIGINT')
  })
  const { code, signal } = await cli.run(args(output, 100_000), { started })
  t.ok(signal === 'SIGINT' || code === 130, 'killed, unless the first one was quicker')
})

t.test('a disk that fills up', { skip: !canMount(folder) && 'mounting needs user namespaces' }, async (t) => {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  const output = join(disk, 'run')
  const command = [process.execPath, cli.main, ...args(output, 400)]
  const script = `"$@"; echo "first $?" >&2
    mount -o remount,size=64m "${disk}"
    "$1" "$2" account --ledger "${output}" --delta 1e-3 --json >&2; echo "account $?" >&2
    "$@" --resume; echo "resumed $?" >&2`
  const prefix = [...smallDisk(disk, 160 * 1024), 'sh', '-c', script, 'sh']
  const { stdout, stderr } = await cli.run(command.slice(2), { prefix })
  const failures = stderr.split('\n').filter((line) => line.startsWith('dp-moe: '))
  t.match(stderr, /^first 1$/m)
  t.match(failures, [/the disk is full. Free some space/])
  t.equal(failures.length, 1)
  t.match(stderr, /^account 0$/m)
  t.match(stderr, /^resumed 0$/m)
  t.match(JSON.parse(stdout), { steps: 400 })
})
