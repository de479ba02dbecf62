import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'

const MiB = 1 << 20

t.test('500 steps of varying size take no more memory than the first ones', async (t) => {
  using device = Device.open('cpu', { threads: 2 })
  const weights = device.zeros([64, 64])
  const reserved: number[] = []
  for (let step = 0; step < 500; step++) {
    const rows = 500 + ((step * 7919) % 100)
    const value = device.scope(() => {
      const x = device.zeros([rows, 64])
      const y = device.empty([rows, 64])
      device.run('add', { a: x, y, size: x.size, alpha: 1, beta: 0 })
      return y.slice(0, 1).data()
    })
    await value
    reserved.push(device.memory().reserved)
  }
  t.equal(Math.max(...reserved), reserved[20])
  t.equal(device.memory().live, 64 * 64 * 4, 'only the weights are left')
  weights[Symbol.dispose]()
  t.equal(device.memory().live, 0)
})

t.test('freed memory is handed out again', async (t) => {
  using device = Device.open('cpu')
  device.zeros([1000])[Symbol.dispose]()
  const { reserved, pooled, live } = device.memory()
  t.equal(live, 0)
  t.equal(pooled, reserved)
  device.zeros([999])
  t.equal(device.memory().reserved, reserved)
  t.equal(device.memory().peak, reserved)
})

t.test('a tensor beyond the limit is OUT_OF_MEMORY, and the device goes on', async (t) => {
  using device = Device.open('cpu', { memoryLimit: 8 * MiB })
  const x = device.zeros([MiB])
  t.throws(() => device.zeros([4 * MiB]), { code: 'OUT_OF_MEMORY', message: /16 MiB .* 4 MiB of 8 MiB/ })
  t.equal(device.memory().live, 4 * MiB)
  t.throws(() => device.empty([2 ** 60]), { code: 'SHAPE_MISMATCH' })
  t.equal((await x.data()).length, MiB)
})

t.test('pooled blocks of other sizes make room when the limit is near', async (t) => {
  using device = Device.open('cpu', { memoryLimit: 8 * MiB })
  for (let i = 0; i < 7; i++) device.zeros([MiB / 4])
  device.scope(() => {
    for (let i = 0; i < 5; i++) device.zeros([MiB / 32])
  })
  t.doesNotThrow(() => device.zeros([MiB / 4]))
})

t.test('tensors that are dropped without being disposed are collected once the event loop turns', async (t) => {
  using device = Device.open('cpu')
  for (let i = 0; i < 1000; i++) {
    device.empty([MiB])
    await setImmediate()
  }
  t.ok(device.memory().reserved < 2000 * MiB, `${Math.round(device.memory().reserved / MiB)} MiB of 4000 are held`)
})
