// What Device.open('cuda') says where CUDA cannot be used; the CPU works as before each time.
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { locateAddon } from '../../lib/engine/addon.js'
import { Device, type DeviceName } from '../../lib/engine/device.js'

const before = process.env.DP_MOE_CUDA_DRIVER
t.teardown(() => {
  if (before === undefined) delete process.env.DP_MOE_CUDA_DRIVER
  else process.env.DP_MOE_CUDA_DRIVER = before
})

async function expectUnavailable(t: Test, driver: string, message: RegExp, name: DeviceName = 'cuda'): Promise<void> {
  process.env.DP_MOE_CUDA_DRIVER = driver
  t.throws(() => Device.open(name), { name: 'DpMoeError', code: 'BACKEND_UNAVAILABLE', message })
  using device = Device.open('cpu')
  t.strictSame(await device.tensor([1, 2]).data(), Float32Array.of(1, 2), 'the CPU works')
}

t.test('no driver: says which file it looked for and how to get one', async (t) => {
  const path = join(t.testdir(), 'libcuda.so.1')
  const message = new RegExp(`Found no CUDA driver \\(${path}.*DP_MOE_CUDA_DRIVER; 'cpu' works without one`)
  await expectUnavailable(t, path, message)
  await expectUnavailable(t, path, message, 'cuda:0')
  await expectUnavailable(t, path, message, 'cuda:7')
})

t.test('a file that is no library', async (t) => {
  const path = join(t.testdir({ 'libcuda.so.1': 'not a library' }), 'libcuda.so.1')
  await expectUnavailable(t, path, new RegExp(`Found no CUDA driver \\(${path}: `))
})

t.test('a library that is not libcuda', async (t) => {
  const path = locateAddon()
  await expectUnavailable(
    t,
    path,
    new RegExp(`^${path} is not a CUDA driver: it has no function cu.*DP_MOE_CUDA_DRIVER`),
  )
})

t.test('an empty name is none: the driver of the system, where there is one', async (t) => {
  const outcome = () => {
    try {
      using device = Device.open('cuda')
      return device.name
    } catch (error) {
      return (error as Error).message
    }
  }
  delete process.env.DP_MOE_CUDA_DRIVER
  const unnamed = outcome()
  process.env.DP_MOE_CUDA_DRIVER = ''
  t.equal(outcome(), unnamed)
  t.match(unnamed, /^cuda:0$|^Found no CUDA driver \(libcuda\.so\.1: |CUDA/)
})
