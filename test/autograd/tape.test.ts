import t from 'tap'
import { add, scale } from '../../lib/autograd/elementwise.js'
import { meanPerUnit, poolPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { type GradientSite, SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { collecting } from '../support/sites.js'

const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())

const layout = new UnitLayout(device, Int32Array.of(0, 2, 3), Int32Array.of(0, 1))
const x = () => device.tensor([1, 2, 3, 4, 5, 6], [3, 2]).withLayout(layout)
const labels = device.tensor([0, 1], [2], 'int32').withLayout(layout.perUnit)

t.test('backward wants one loss per unit', (t) => {
  const tape = new Tape(device, new SumSink())
  const rowLosses = device.zeros([3], { layout })
  for (const wrong of [rowLosses, device.zeros([2]), device.zeros([2, 1], { layout: layout.perUnit })]) {
    t.throws(() => tape.backward(wrong), { code: 'SHAPE_MISMATCH', message: /meanPerUnit/ })
  }
  t.equal(meanPerUnit(tape, rowLosses).layout, layout.perUnit)
  t.throws(() => new Tape(device).backward(device.zeros([2], { layout: layout.perUnit })), { message: /evaluation/ })
  t.end()
})

t.test('without a sink nothing is recorded', (t) => {
  const tape = new Tape(device)
  const weight = new Parameter(device.zeros([2, 2]))
  const y = linear(tape, x(), weight)
  t.equal(tape.tracks(y), false)
  t.equal(tape.trains(weight), false)
  t.end()
})

t.test('gradients of an input used several times add up', async (t) => {
  const tape = new Tape(device, new SumSink())
  const input = tape.watch(x())
  const y = add(tape, scale(tape, input, 2), add(tape, input, input, 0.5, 0.25))
  tape.backward(crossEntropy(tape, poolPerUnit(tape, y), labels))
  const gradient = (await tape.gradientOf(input)!.data()) as Float32Array
  const once = new Tape(device, new SumSink())
  const other = once.watch(x())
  once.backward(crossEntropy(once, poolPerUnit(once, scale(once, other, 2.75)), labels))
  const expected = (await once.gradientOf(other)!.data()) as Float32Array
  t.ok(gradient.every((value, i) => Math.abs(value - expected[i]!) < 1e-6))
})

t.test('a part that does not reach the loss hands over no site', (t) => {
  const sites: GradientSite[] = []
  const tape = new Tape(device, collecting(sites))
  const [used, unused] = [new Parameter(device.zeros([2, 2])), new Parameter(device.zeros([2, 2]))]
  const input = x()
  linear(tape, input, unused)
  tape.backward(crossEntropy(tape, poolPerUnit(tape, linear(tape, input, used)), labels))
  t.same(
    sites.map(({ parameter }) => parameter),
    [used],
  )
  t.end()
})

t.test('frozen parameters are passed through, and nothing is recorded below the first trained one', (t) => {
  const sites: GradientSite[] = []
  const tape = new Tape(device, collecting(sites))
  const make = () => new Parameter(device.zeros([2, 2]))
  const [first, second, third] = [make().freeze(), make(), make().freeze()]
  const low = linear(tape, x(), first)
  t.equal(tape.tracks(low), false, 'below')
  const middle = linear(tape, low, second)
  const high = linear(tape, middle, third)
  t.ok(tape.tracks(high), 'above')
  tape.backward(crossEntropy(tape, poolPerUnit(tape, high), labels))
  t.same(
    sites.map(({ parameter }) => parameter),
    [second],
  )
  t.end()
})

t.test('a weight used twice hands over two sites whose gradients add up', async (t) => {
  const weight = new Parameter(device.tensor([0.1, 0.2, -0.3, 0.4], [2, 2]))
  const gradientOf = async (forward: (tape: Tape) => ReturnType<typeof x>) => {
    const tape = new Tape(device, new SumSink())
    tape.backward(crossEntropy(tape, poolPerUnit(tape, forward(tape)), labels))
    const gradient = Float64Array.from((await weight.gradient.data()) as Float32Array)
    weight.gradient.fill(0)
    return gradient
  }
  const input = x()
  const twice = await gradientOf((tape) => add(tape, linear(tape, input, weight), linear(tape, input, weight)))
  const doubled = await gradientOf((tape) => linear(tape, scale(tape, input, 2), weight))
  t.ok(twice.every((value, i) => Math.abs(value - doubled[i]!) < 1e-6))
})

t.test('shapes that do not fit are refused at the call', (t) => {
  const tape = new Tape(device)
  const weight = new Parameter(device.zeros([2, 3]))
  t.throws(() => linear(tape, x(), weight), { code: 'SHAPE_MISMATCH', message: /^linear: .*\[3, 2\].*\[2, 3\]/ })
  const bias = new Parameter(device.zeros([3]))
  t.throws(() => linear(tape, x(), new Parameter(device.zeros([2, 2])), bias), { code: 'SHAPE_MISMATCH' })
  t.throws(() => add(tape, x(), device.zeros([3, 1], { layout })), { code: 'SHAPE_MISMATCH', message: /^add: / })
  t.throws(() => crossEntropy(tape, x(), device.zeros([2], { dtype: 'int32', layout })), { code: 'SHAPE_MISMATCH' })
  t.end()
})
