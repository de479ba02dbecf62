import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import type { DeviceName } from '../../lib/engine/device.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'

const fixture = fileURLToPath(new URL('./fixtures/busy.ts', import.meta.url))

function run(how: string, device: DeviceName = 'cpu') {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, [...process.execArgv, fixture, how, device], {
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

t.test('the same on a CUDA device, and with one that is lost', async (t) => {
  const emulated = new EmulatedCuda()
  t.teardown(() => emulated.remove())
  emulated.use()
  t.match(run('exit', 'cuda'), { status: 0, signal: null, stderr: '' })
  t.match(run('workers', 'cuda'), { status: 0, signal: null, stdout: 'terminated 1024 2048' })
  emulated.use('launch-fails=5')
  t.match(run('natural', 'cuda'), { status: 1, signal: null, stderr: /DEVICE_LOST/ })
  t.match(run('exit', 'cuda'), { status: 0, signal: null, stderr: '' })
})
