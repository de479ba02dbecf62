import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'

/** y = 2 x, the op these tests drive the engine with. */
function double(device: Device, x: Tensor, y: Tensor, size = x.size): void {
  device.run('add', { a: x, y, size, alpha: 2, beta: 0 })
}

t.test('a device tells what it runs on', async (t) => {
  using device = Device.open('cpu', { threads: 2 })
  t.equal(device.name, 'cpu')
  t.equal(device.info.threads, 2)
  t.ok(device.info.vectorWidth >= 4)
  t.ok(['base', 'avx2', 'avx512'].includes(device.info.instructionSet), device.info.instructionSet)
})

t.test('threads default to DP_MOE_THREADS, and a wrong number is refused', async (t) => {
  const before = process.env.DP_MOE_THREADS
  t.teardown(() => {
    if (before === undefined) delete process.env.DP_MOE_THREADS
    else process.env.DP_MOE_THREADS = before
  })
  process.env.DP_MOE_THREADS = '3'
  using device = Device.open('cpu')
  t.equal(device.info.threads, 3)
  process.env.DP_MOE_THREADS = 'many'
  t.throws(() => Device.open('cpu'), { code: 'INVALID_ARGUMENT', message: /DP_MOE_THREADS, got 'many'/ })
  t.throws(() => Device.open('cpu', { threads: -1 }), { code: 'INVALID_ARGUMENT', message: /threads, got -1/ })
  t.throws(() => Device.open('cpu', { threads: 1.5 }), { code: 'INVALID_ARGUMENT' })
})

t.test('a backend that is not there is a typed error with the reason', async (t) => {
  for (const name of ['tpu', 'cuda:', 'cuda:x', 'cuda:-1', 'cuda:0 ', 'cuda0', 'CUDA', 'cuda:12345']) {
    const message = `Expected a device named 'cpu', 'cuda' or 'cuda:0', got '${name}'`
    t.throws(() => Device.open(name as 'cpu'), { name: 'DpMoeError', code: 'BACKEND_UNAVAILABLE', message })
  }
})

t.test('activations on the CPU are float32', async (t) => {
  using device = Device.open('cpu', { precision: 'float32' })
  t.equal(device.info.precision, 'float32')
  t.throws(() => Device.open('cpu', { precision: 'bfloat16' }), { code: 'INVALID_ARGUMENT', message: /CUDA device/ })
  t.throws(() => Device.open('cpu', { precision: 'float16' as 'float32' }), {
    code: 'INVALID_ARGUMENT',
    message: /float32 or bfloat16 for precision, got 'float16'/,
  })
})

t.test('values go in and come out', async (t) => {
  using device = Device.open('cpu')
  t.strictSame(await device.tensor([1.5, 2, 3], [3, 1]).data(), Float32Array.of(1.5, 2, 3))
  t.strictSame(await device.tensor(Float64Array.of(1e-300)).data(), Float64Array.of(1e-300))
  t.strictSame(await device.tensor([1, -2], [2], 'int32').data(), Int32Array.of(1, -2))
  t.strictSame(await device.tensor(Float64Array.of(0.5), [], 'float32').data(), Float32Array.of(0.5))
  t.strictSame(await device.zeros([2], { dtype: 'float64' }).data(), new Float64Array(2))
  t.strictSame(await device.zeros([2]).fill(0.25).data(), Float32Array.of(0.25, 0.25))
  t.strictSame(await device.zeros([2], { dtype: 'int32' }).fill(-7).data(), Int32Array.of(-7, -7))
  t.strictSame(await device.empty([0, 4]).data(), new Float32Array(0))
})

t.test('an upload reads the array at once', async (t) => {
  using device = Device.open('cpu')
  const values = Float32Array.of(1, 2, 3)
  const x = device.tensor(values)
  values.fill(9)
  x.write(Float32Array.of(8), 1)
  t.strictSame(await x.data(), Float32Array.of(1, 8, 3))
  const part = new Float32Array([0, 1, 2, 3, 4]).subarray(3)
  t.strictSame(await device.tensor(part).data(), Float32Array.of(3, 4))
})

t.test('ops run in the order of the calls', async (t) => {
  using device = Device.open('cpu', { threads: 2 })
  const x = device.tensor([1])
  const seen: Promise<ArrayLike<number>>[] = []
  for (let i = 0; i < 5; i++) {
    double(device, x, x)
    seen.push(x.data())
  }
  x.fill(0)
  t.strictSame(
    (await Promise.all(seen)).map((values) => values[0]),
    [2, 4, 8, 16, 32],
  )
})

t.test('a full queue makes the caller wait, and nothing is lost', async (t) => {
  using device = Device.open('cpu')
  const large = device.zeros([1 << 22])
  for (let i = 0; i < 500; i++) double(device, large, large) // while these run, more is enqueued than the queue holds
  const count = device.tensor([0])
  const one = device.tensor([1])
  for (let i = 0; i < 100_000; i++) device.run('add', { a: count, b: one, y: count, size: 1, alpha: 1, beta: 1 })
  t.strictSame(await count.data(), Float32Array.of(100_000))
})

t.test('slices, reshapes and layouts are over the same memory', async (t) => {
  using device = Device.open('cpu')
  const x = device.tensor([1, 2, 3, 4], [2, 2])
  const slice = x.slice(1, 2)
  slice.fill(0)
  t.strictSame(slice.shape, [2])
  t.strictSame(await x.data(), Float32Array.of(1, 0, 0, 4))
  t.strictSame(x.reshape([4]).shape, [4])
  const layout = { name: 'rows' }
  t.equal(x.withLayout(layout).layout, layout)
  const before = device.memory().live
  x[Symbol.dispose]()
  t.strictSame(await slice.data(), Float32Array.of(0, 0), 'the slice keeps the memory')
  t.equal(device.memory().live, before)
  t.throws(() => slice.slice(1, 2), { code: 'SHAPE_MISMATCH', message: /part of 2 elements, got 2 from 1/ })
  t.throws(() => slice.reshape([3]), { code: 'SHAPE_MISMATCH' })
})

t.test('copies', async (t) => {
  using device = Device.open('cpu')
  const x = device.tensor([1, 2])
  t.strictSame(await device.zeros([2]).copyFrom(x).data(), Float32Array.of(1, 2))
  t.throws(() => device.zeros([3]).copyFrom(x), { code: 'SHAPE_MISMATCH' })
  t.throws(() => device.zeros([2], { dtype: 'int32' }).copyFrom(x), { code: 'SHAPE_MISMATCH', message: /int32/ })
})

t.test('wrong calls throw where they are made and name the op and the operand', async (t) => {
  using device = Device.open('cpu')
  using other = Device.open('cpu')
  const x = device.tensor([1])
  const y = device.empty([1])
  const run = (operands: Record<string, unknown>) => () =>
    device.run('add', { a: x, y, size: 1, alpha: 1, beta: 0, ...operands } as never)
  t.throws(run({ a: undefined }), {
    code: 'INVALID_ARGUMENT',
    message: 'add: expected a tensor of float32 or bfloat16 for a, got undefined',
  })
  t.throws(run({ a: other.tensor([1]) }), { code: 'INVALID_ARGUMENT', message: /add: a is on another device/ })
  t.throws(run({ y: device.empty([1], { dtype: 'int32' }) }), {
    code: 'SHAPE_MISMATCH',
    message: /add: expected float32 or bfloat16 for y, got int32 tensor \[1\]/,
  })
  t.throws(run({ size: 0.5 }), { code: 'INVALID_ARGUMENT', message: /add: argument 3: expected an integer/ })
  t.throws(run({ size: 'x' }), { code: 'INVALID_ARGUMENT' })
  y[Symbol.dispose]()
  t.throws(run({}), { code: 'DISPOSED', message: /add: y \(float32 tensor \[1\]\) was used after it was disposed/ })
  t.throws(() => device.tensor([1, 2], [3]), { code: 'SHAPE_MISMATCH', message: /expected 3 values, got 2/ })
  t.throws(() => device.empty([-1]), { code: 'SHAPE_MISMATCH' })
  t.throws(() => x.write(Int32Array.of(1)), { code: 'SHAPE_MISMATCH', message: /typed array of float32/ })
  t.throws(() => x.write(Float32Array.of(1, 2)), { code: 'SHAPE_MISMATCH' })
})

t.test('a tensor used after it was disposed is an error, disposing twice is not', async (t) => {
  using device = Device.open('cpu')
  const x = device.tensor([1])
  x[Symbol.dispose]()
  x[Symbol.dispose]()
  t.ok(x.disposed)
  await t.rejects(x.data(), { code: 'DISPOSED' })
  t.throws(() => x.fill(0), { code: 'DISPOSED', message: /float32 tensor \[1\]/ })
  const y = device.tensor([5])
  t.strictSame(await y.data(), Float32Array.of(5), 'memory that is handed out again is the new tensor')
})

t.test('a failing op rejects the next await, skips the ops between, and the device goes on', async (t) => {
  using device = Device.open('cpu')
  const x = device.tensor([1, 1])
  const y = device.zeros([2])
  double(device, x, y, 100)
  y.fill(7)
  await t.rejects(y.data(), { name: 'DpMoeError', code: 'SHAPE_MISMATCH', message: /^add: / })
  t.strictSame(await y.data(), Float32Array.of(0, 0), 'the fill after the failure was skipped')
  double(device, x, y)
  t.strictSame(await y.data(), Float32Array.of(2, 2))
  double(device, x, y, 100)
  await t.rejects(device.synchronize(), { code: 'SHAPE_MISMATCH' })
  await device.synchronize()
})

t.test('a tensor counts what writes it, a device what failed', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const [x, y] = [device.zeros([2]), device.zeros([2])]
  const writes: [string, () => unknown][] = [
    ['an op', () => double(device, x, y)],
    ['write', () => y.write(Float32Array.of(1, 2))],
    ['fill', () => y.fill(3)],
    ['copyFrom', () => y.copyFrom(x)],
  ]
  for (const [name, write] of writes) {
    const before = [x.version, y.version]
    write()
    t.ok(y.version > before[1]!, name)
    t.equal(x.version, before[0], `${name} reads x`)
  }
  await y.data()
  t.equal(device.failures, 0)
  double(device, x, y, 3)
  await t.rejects(y.data())
  double(device, x, y, 3)
  await t.rejects(device.synchronize())
  t.equal(device.failures, 2)
})

t.test('closing a device rejects what was not computed', async (t) => {
  const device = Device.open('cpu')
  const x = device.zeros([1 << 20])
  for (let i = 0; i < 1000; i++) double(device, x, x)
  const pending = x.data()
  device.close()
  device.close()
  await t.rejects(pending, { code: 'DISPOSED' })
  t.ok(x.disposed)
  t.throws(() => device.zeros([1]), { code: 'DISPOSED' })
  await t.rejects(device.synchronize(), { code: 'DISPOSED' })
  x[Symbol.dispose]()
})
