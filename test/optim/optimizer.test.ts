import t from 'tap'
import { Parameter } from '../../lib/autograd/parameter.js'
import { Device } from '../../lib/engine/device.js'
import { OutOfRangeError } from '../../lib/errors.js'
import { adam, adamW, dpAdamBC } from '../../lib/optim/adam.js'
import type { Optimizer } from '../../lib/optim/optimizer.js'
import { sgd } from '../../lib/optim/sgd.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

function parameter(name: string, ...values: number[]): Parameter {
  const made = new Parameter(device.tensor(values, [values.length]))
  made.name = name
  return made
}

async function values(of: Parameter): Promise<number[]> {
  return Array.from((await of.tensor.data()) as Float32Array)
}

/** Updates with a gradient that depends on the step and the entry. */
function run(optimizer: Optimizer, first: number, last: number): void {
  for (let step = first; step < last; step++) {
    for (const { gradient } of optimizer.parameters) {
      gradient.write(Float32Array.from({ length: gradient.size }, (_, i) => Math.sin(3 * step + i)))
    }
    optimizer.update({ step, divisor: 2 })
  }
}

t.test('parameters without names, or with the same, keep states of their own', async (t) => {
  for (const name of ['', 'weight']) {
    const alone = [parameter('x', 1, 2, 3), parameter('y', 4, 5)]
    for (const one of alone) run(adam([one], { learningRate: 0.1 }), 0, 4)
    const together = [parameter(name, 1, 2, 3), parameter(name, 4, 5)]
    run(adam(together, { learningRate: 0.1 }), 0, 4)
    for (const [i, one] of together.entries())
      t.same(await values(one), await values(alone[i]!), `named '${name}': ${i}`)
  }
})

t.test('a snapshot continues to the same bits', async (t) => {
  const makers: Record<string, (of: Parameter[]) => Optimizer> = {
    sgd: (of) => sgd(of, { learningRate: 0.1, momentum: 0.9, averageFrom: 2 }),
    adamW: (of) => adamW(of, { learningRate: 0.1, weightDecay: 0.1 }),
    dpAdamBC: (of) => dpAdamBC(of, { learningRate: 0.1, averageFrom: 4 }),
  }
  for (const [name, make] of Object.entries(makers)) {
    const [unbroken, broken] = [parameter('w', 1, 2, 3), parameter('w', 1, 2, 3)]
    run(make([unbroken]), 0, 8)
    const before = make([broken])
    run(before, 0, 5)
    const { updates, tensors } = before.snapshot()
    const saved = new Map<string, { shape: readonly number[]; data: Float32Array }>()
    for (const [key, tensor] of tensors) {
      saved.set(key, { shape: tensor.shape, data: (await tensor.data()) as Float32Array })
    }
    const after = make([broken])
    after.restore(updates, saved)
    t.equal(after.updates, 5)
    run(after, 5, 8)
    t.same(await values(broken), await values(unbroken), name)
    t.same([...after.averages().keys()], name === 'adamW' ? [] : ['w'])
  }
})

t.test('the average is the mean of the weights from the stated update on', async (t) => {
  const one = parameter('w', 1, 2)
  const optimizer = sgd([one], { learningRate: 0.1, averageFrom: 3 })
  const seen: number[][] = []
  for (let step = 0; step < 6; step++) {
    run(optimizer, step, step + 1)
    seen.push(await values(one))
    t.equal(optimizer.averages().size, step >= 2 ? 1 : 0)
  }
  const average = (await optimizer.averages().get('w')!.data()) as Float32Array
  const expected = [0, 1].map((i) => seen.slice(2).reduce((sum, row) => sum + row[i]!, 0) / 4)
  for (const [i, value] of expected.entries()) t.ok(Math.abs(average[i]! - value) < 1e-6, `${average[i]} ${value}`)
})

t.test('frozen parameters are left alone, and go on where they were once trained again', async (t) => {
  const [moving, frozen] = [parameter('a', 1), parameter('b', 1)]
  frozen.freeze()
  const optimizer = sgd([moving, frozen], { learningRate: 0.1, weightDecay: 0.5 })
  run(optimizer, 0, 3)
  t.same(await values(frozen), [1])
  t.notSame(await values(moving), [1])
  frozen.trainable = true
  run(optimizer, 3, 4)
  t.notSame(await values(frozen), [1])
})

t.test('arguments out of range are refused by name', (t) => {
  const one = () => [parameter('w', 1)]
  t.throws(() => sgd([], { learningRate: 1 }), { code: 'INVALID_ARGUMENT' })
  const wrong: [string, () => unknown][] = [
    ['learningRate', () => sgd(one(), { learningRate: -1 })],
    ['learningRate', () => adam(one(), { learningRate: Number.NaN })],
    ['weightDecay', () => adamW(one(), { learningRate: 1, weightDecay: -0.1 })],
    ['averageFrom', () => sgd(one(), { learningRate: 1, averageFrom: 0 })],
    ['momentum', () => sgd(one(), { learningRate: 1, momentum: 1 })],
    ['beta1', () => adam(one(), { learningRate: 1, beta1: 1 })],
    ['beta2', () => adam(one(), { learningRate: 1, beta2: -0.1 })],
    ['epsilon', () => adam(one(), { learningRate: 1, epsilon: -1 })],
    ['varianceFloor', () => dpAdamBC(one(), { learningRate: 1, varianceFloor: 0 })],
    ['divisor', () => sgd(one(), { learningRate: 1 }).update({ step: 0, divisor: 0 })],
    ['divisor', () => sgd(one(), { learningRate: 1 }).update({ step: 0, divisor: Infinity })],
  ]
  for (const [name, call] of wrong) {
    t.throws(call, OutOfRangeError, name)
    t.throws(call, { message: new RegExp(name) }, name)
  }
  t.end()
})
