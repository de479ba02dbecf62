import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const fixture = fileURLToPath(new URL('./fixtures/busy.ts', import.meta.url))

function run(how: string) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...process.execArgv, fixture, how], {
    encoding: 'utf8',
    timeout: 60_000,
  })
  return { status, signal, stdout, stderr }
}

t.test('process.exit with a full queue', async (t) => {
  t.match(run('exit'), { status: 0, signal: null })
})

t.test('an exception with a full queue', async (t) => {
  t.match(run('throw'), { status: 1, signal: null, stderr: /Error: stop/ })
})

t.test('an open promise keeps the process alive until it is settled', async (t) => {
  t.match(run('natural'), { status: 0, signal: null, stdout: 'computed' })
})

t.test('an open device alone does not', async (t) => {
  t.match(run('idle'), { status: 0, signal: null, stdout: 'idle' })
})

t.test('two workers with devices of their own, terminated at work', async (t) => {
  t.match(run('workers'), { status: 0, signal: null, stdout: 'terminated 1024 2048' })
})
