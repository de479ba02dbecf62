import { setImmediate } from 'node:timers/promises'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'

const device = Device.open('cpu')
t.teardown(() => device.close())
const live = () => device.memory().live

t.test('a scope frees what was made inside', async (t) => {
  const before = live()
  const sum = device.scope(() => {
    device.zeros([1000])
    device.scope(() => device.zeros([10]))
    return 3
  })
  t.equal(sum, 3)
  t.equal(live(), before)
})

t.test('returned tensors survive, in arrays and objects too, and belong to the scope around', async (t) => {
  const before = live()
  const { one, list } = device.scope(() => ({ one: device.tensor([1]), list: [device.tensor([2])], lost: undefined }))
  t.strictSame(await one.data(), Float32Array.of(1))
  t.strictSame(await list[0]!.data(), Float32Array.of(2))
  one[Symbol.dispose]()
  list[0]![Symbol.dispose]()
  t.equal(live(), before)
  device.scope(() => {
    device.scope(() => device.tensor([1]))
  })
  t.equal(live(), before, 'adopted by the outer scope and freed with it')
})

t.test('kept tensors survive every scope', async (t) => {
  const kept = device.scope(() => {
    const inner = device.scope(() => {
      device.keep(device.tensor([4]))
      return device.keep(device.tensor([5]))
    })
    return inner
  })
  t.strictSame(await kept.data(), Float32Array.of(5))
  kept[Symbol.dispose]()
})

t.test('a value computed in a scope can be awaited outside', async (t) => {
  const before = live()
  const value = device.scope(() => device.tensor([7]).data())
  t.equal(live(), before)
  device.zeros([1])[Symbol.dispose]() // takes the same memory, later in order
  t.strictSame(await value, Float32Array.of(7))
})

t.test('a throwing scope frees everything', async (t) => {
  const before = live()
  t.throws(
    () =>
      device.scope(() => {
        device.zeros([100])
        throw new Error('stop')
      }),
    { message: 'stop' },
  )
  await t.rejects(
    device.scopeAsync(async () => {
      device.zeros([100])
      await setImmediate()
      device.zeros([100])
      throw new Error('stop')
    }),
    { message: 'stop' },
  )
  t.equal(live(), before)
})

t.test('scope refuses an asynchronous function', async (t) => {
  const before = live()
  t.throws(() => device.scope(async () => device.zeros([1])), { code: 'INVALID_ARGUMENT', message: /scopeAsync/ })
  t.equal(live(), before)
})

t.test('asynchronous scopes follow their function, though several are under way', async (t) => {
  const before = live()
  const made: Tensor[] = []
  const body = (value: number) => async () => {
    const first = device.tensor([value])
    await setImmediate()
    const inner = device.scope(() => device.tensor([value + 1]))
    await setImmediate()
    t.notOk(first.disposed || inner.disposed)
    made.push(first, inner)
    return device.tensor([value + 2])
  }
  const outside = device.tensor([0])
  const results = await Promise.all([device.scopeAsync(body(10)), device.scopeAsync(body(20))])
  t.ok(made.every((tensor) => tensor.disposed))
  t.strictSame(await results[1]!.data(), Float32Array.of(22))
  for (const tensor of [...results, outside]) tensor[Symbol.dispose]()
  t.equal(live(), before)
})

t.test('an asynchronous scope inside a synchronous one is its own', async (t) => {
  const before = live()
  let pending: Promise<Tensor> | undefined
  device.scope(() => {
    pending = device.scopeAsync(async () => {
      device.zeros([10])
      await setImmediate()
      return device.tensor([3])
    })
    device.zeros([10])
  })
  const result = await pending!
  t.strictSame(await result.data(), Float32Array.of(3), 'the scope around ended first: the result is nobody’s')
  result[Symbol.dispose]()
  t.equal(live(), before)
})
