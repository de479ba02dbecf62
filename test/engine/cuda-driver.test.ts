// The host side of the CUDA backend on emulated devices: what works, and what each failure says.
import { join } from 'node:path'
import t, { type Test } from 'tap'
import { Device, type DeviceOptions } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { DpMoeError } from '../../lib/errors.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'

const emulated = new EmulatedCuda()
t.teardown(() => emulated.remove())

function open(faults = '', options: DeviceOptions = {}): Device {
  emulated.use(faults)
  return Device.open('cuda', options)
}

/** y = 2 x. */
function double(device: Device, x: Tensor): Tensor {
  const y = device.empty(x.shape, { dtype: x.dtype })
  device.run('add', { a: x, y, size: x.size, alpha: 2, beta: 0 })
  return y
}

async function expectWorks(t: Test, device: Device, what: string): Promise<void> {
  const x = device.tensor([1, 2, 3])
  t.strictSame(await double(device, x).data(), Float32Array.of(2, 4, 6), what)
}

const unavailable = (message: RegExp) => ({ name: 'DpMoeError', code: 'BACKEND_UNAVAILABLE', message })

t.test('a device: its name, precision and values', async (t) => {
  using device = open('devices=2', { precision: 'bfloat16' })
  t.match(device.info, { name: 'cuda:0', instructionSet: 'sm_90', vectorWidth: 32, precision: 'bfloat16' })
  t.ok(device.info.threads >= 1)
  using second = Device.open('cuda:1')
  t.match(second.info, { name: 'cuda:1', precision: 'float32' })
  await expectWorks(t, device, 'the first device')
  await expectWorks(t, second, 'the second')
  const halves = device.tensor([1.5, -2], [2], 'bfloat16')
  t.strictSame(await double(device, halves).data(), Float32Array.of(3, -4))
})

t.test('uploads, fills, copies and parts', async (t) => {
  using device = open()
  t.strictSame(await device.tensor([1, -2], [2], 'int32').data(), Int32Array.of(1, -2))
  t.strictSame(await device.tensor(Float64Array.of(1e-300)).data(), Float64Array.of(1e-300))
  for (const dtype of ['float32', 'float64', 'int32', 'bfloat16'] as const) {
    for (const value of [0, -3]) {
      const filled = await device.zeros([5], { dtype }).fill(value).data()
      t.strictSame([...filled], Array(5).fill(value), `${dtype} ${value}`)
    }
  }
  t.strictSame(await device.zeros([2], { dtype: 'float64' }).fill(0.1).data(), Float64Array.of(0.1, 0.1))
  const x = device.tensor([1, 2, 3, 4])
  x.slice(1, 2).fill(9)
  t.strictSame(await device.zeros([4]).copyFrom(x).data(), Float32Array.of(1, 9, 9, 4))
  t.strictSame(await device.empty([0, 3]).data(), new Float32Array(0))
})

t.test(
  'uploads larger than what is staged at a time, and many small ones, keep their bytes and their order',
  async (t) => {
    for (const seed of [1, 2, 3]) {
      using device = open(`seed=${seed}`)
      const large = Float32Array.from({ length: 7 << 20 }, (_, i) => i % 8191)
      const x = device.tensor(large)
      large.fill(-1)
      const y = device.empty([7 << 20]).copyFrom(x)
      const small = device.zeros([1])
      for (let i = 1; i <= 1000; i++) small.write(Float32Array.of(i))
      t.strictSame(await small.data(), Float32Array.of(1000))
      const values = await y.data()
      t.ok(
        values.every((value, i) => value === i % 8191),
        `schedule ${seed}`,
      )
    }
  },
)

t.test('no device, no such device, an old driver', async (t) => {
  emulated.use('devices=0')
  t.throws(() => Device.open('cuda'), unavailable(/\(CUDA 13\.0\).*CUDA_ERROR_NO_DEVICE.*CUDA_VISIBLE_DEVICES/))
  emulated.use('devices=2')
  t.throws(() => Device.open('cuda:2'), unavailable(/number below 2, got 'cuda:2': the driver sees 2 devices/))
  emulated.use('driver-version=12040')
  t.throws(() => Device.open('cuda'), unavailable(/too old: it supports CUDA 12\.4.*need 13\.0.*driver of version 580/))
})

t.test('a driver that lacks a function', async (t) => {
  emulated.useSource(`
    extern "C" int cuDriverGetVersion(int* version) { return *version = 13000, 0; }
    extern "C" int cuInit(unsigned) { return 0; }`)
  t.throws(() => Device.open('cuda'), unavailable(/has no function cuGetErrorName; install a newer NVIDIA driver/))
})

t.test('no kernels, damaged ones, none for this device', async (t) => {
  emulated.use('no-image')
  t.throws(
    () => Device.open('cuda'),
    unavailable(/^cuda:0 \(Emulated device, compute capability 9\.0\).*has no kernels for it.*8\.0 or newer/),
  )
  const folder = t.testdir({ damaged: 'no fatbin', empty: '' })
  for (const name of ['damaged', 'empty']) {
    const path = join(folder, name)
    emulated.use('', { DP_MOE_CUDA_FATBIN: path })
    t.throws(
      () => Device.open('cuda'),
      unavailable(new RegExp(`${path} is damaged or no fatbin.*install dp-moe again`)),
    )
  }
  emulated.use('', { DP_MOE_CUDA_FATBIN: join(folder, 'absent') })
  t.throws(() => Device.open('cuda'), unavailable(/Found no CUDA kernels at .*absent.*docs\/cuda\.md/))
})

t.test('memory that runs out is an error of the call that asked for it, and the device goes on', async (t) => {
  for (const memoryLimit of [undefined, 1 << 30]) {
    using device = open('memory=67108864', memoryLimit === undefined ? {} : { memoryLimit })
    const x = device.zeros([5 << 20]) // 20 MiB of 64
    const message = memoryLimit === undefined ? /48 MiB.*hold 20 MiB of 60 MiB.*dispose/ : /48 MiB.*has no more/
    t.throws(() => device.zeros([12 << 20]), { code: 'OUT_OF_MEMORY', message })
    x[Symbol.dispose]()
    using y = device.zeros([12 << 20]) // needs the pooled block of x given back
    t.equal((await y.slice(0, 1).data())[0], 0)
  }
  using limited = open('', { memoryLimit: 1 << 20 })
  t.throws(() => limited.zeros([1 << 20]), { code: 'OUT_OF_MEMORY' })
  await expectWorks(t, limited, 'with a limit')
})

t.test('a launch that is refused rejects the next await, and the device goes on', async (t) => {
  using device = open('launch-refused=1')
  const x = device.tensor([1])
  const y = double(device, x)
  await t.rejects(y.data(), {
    code: 'ENGINE',
    message: /^cuda:0: launching add_float32 with 1 x 1 blocks of .* failed \(CUDA_ERROR_LAUNCH_OUT_OF_RESOURCES/,
  })
  await expectWorks(t, device, 'afterwards')
})

t.test('a kernel that fails: the device is lost, each call says so, closing works and so does the CPU', async (t) => {
  const device = open('launch-fails=2')
  await expectWorks(t, device, 'before')
  const x = device.tensor([1, 2])
  double(device, x)
  const lost = {
    code: 'DEVICE_LOST',
    message: /^cuda:0: .*CUDA_ERROR_LAUNCH_FAILED.*start the process again and resume/,
  }
  await t.rejects(device.synchronize(), lost)
  await t.rejects(device.synchronize(), lost)
  await t.rejects(x.data(), lost)
  x.fill(1)
  await t.rejects(x.data(), lost)
  device.run('add', { a: x, y: x, size: 2, alpha: 2, beta: 0 })
  await t.rejects(x.data(), lost)
  t.throws(() => device.zeros([1 << 20]), lost)
  x[Symbol.dispose]()
  await t.rejects(device.synchronize(), lost)
  device.close()
  using cpu = Device.open('cpu')
  await expectWorks(t, cpu, 'the CPU')
})

t.test('DP_MOE_CUDA_SYNC: the op that failed says so', async (t) => {
  emulated.use('', { DP_MOE_CUDA_SYNC: '1' })
  using device = Device.open('cuda')
  const table = device.zeros([3, 2])
  const ids = device.tensor([0, 7], [2], 'int32')
  const lookUp = () => {
    const y = device.empty([2, 2])
    device.run('embedding', { table, ids, y, rows: 2, d: 2, vocabulary: 3, scale: 1 })
    return y
  }
  await t.rejects(lookUp().data(), { code: 'INVALID_ARGUMENT', message: /^embedding: .*got 7/ })
  await expectWorks(t, device, 'afterwards')
  emulated.use('launch-fails=1', { DP_MOE_CUDA_SYNC: '1' })
  using failing = Device.open('cuda')
  await t.rejects(double(failing, failing.tensor([1])).data(), {
    code: 'DEVICE_LOST',
    message: /^cuda:0: running add_float32 failed/,
  })
})

t.test('a wrong value in an operand rejects the next await with the words of the CPU', async (t) => {
  using cpu = Device.open('cpu')
  using cuda = open()
  const [expected, actual] = await Promise.all(
    [cpu, cuda].map(async (device) => {
      const table = device.zeros([3, 2])
      const lookUp = async (ids: number[]) => {
        const y = device.empty([2, 2])
        device.run('embedding', {
          table,
          ids: device.tensor(ids, [2], 'int32'),
          y,
          rows: 2,
          d: 2,
          vocabulary: 3,
          scale: 1,
        })
        return y.data()
      }
      const failure = await lookUp([0, 7]).catch((error: unknown) => error)
      t.ok(failure instanceof DpMoeError)
      t.strictSame(await lookUp([0, 2]), new Float32Array(4), `${device.name} afterwards`)
      return failure as DpMoeError
    }),
  )
  t.equal(actual?.code, expected?.code)
  t.equal(actual?.message, expected?.message.replace(' at position 1', ''), 'but for where it was: threads do not know')
})

t.test('a device lost at any call gives a clear error, and the process goes on', async (t) => {
  const session = async () => {
    using device = Device.open('cuda')
    const x = device.tensor([1, 2, 3])
    const y = double(device, x)
    using more = device.zeros([1 << 10])
    y.fill(2)
    await y.data()
    await more.data()
  }
  let survived = 0
  let call = 1
  for (; survived === 0 && call < 200; call++) {
    emulated.use(`lost=${call}, seed=${call}`)
    try {
      await session()
      survived = call
    } catch (error) {
      const { code, message } = error as DpMoeError
      if (!/^(DEVICE_LOST|BACKEND_UNAVAILABLE)$/.test(code) || !/CUDA_ERROR_ECC_UNCORRECTABLE/.test(message)) {
        t.fail(`lost at call ${call}: ${code}: ${message}`)
      }
    }
  }
  t.ok(survived > 20, `the session made ${survived} calls`)
})
