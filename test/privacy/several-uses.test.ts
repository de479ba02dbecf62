import t from 'tap'
import { add } from '../../lib/autograd/elementwise.js'
import { meanPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { linear } from '../../lib/autograd/linear.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { Tape } from '../../lib/autograd/tape.js'
import { vocabularyLoss } from '../../lib/autograd/vocabulary-loss.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { uniforms } from '../support/weights.js'

// The norm of a parameter's gradient is that of the sum over its uses. A sink that took one use for all would clip too little.

const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())

const layout = new UnitLayout(device, Int32Array.of(0, 2, 3), Int32Array.of(0, 1))
const values = Float32Array.of(1, -2, 0.5, 3, -1, 2)
const input = () => device.tensor(values, [3, 2]).withLayout(layout)
const targets = device.tensor([1, 0, 1], [3], 'int32').withLayout(layout)
const weight = () => new Parameter(device.tensor([0.3, -0.2, 0.5, 0.7], [2, 2]))

function sinkOf(parameter: Parameter): ClippedSumSink {
  const statistics = device.zeros([1, 3], { dtype: 'float64' })
  return new ClippedSumSink(device, clippingGroups('flat', 1, [parameter]), 2, statistics)
}

t.test('an op that names a parameter once and hands over two sites is refused', (t) => {
  const w = weight()
  const sink = sinkOf(w)
  const tape = new Tape(device, sink)
  const x = input()
  const y = device.empty([3, 2], { layout })
  tape.record([y], [], [w], ([dy]) => {
    const site = { kind: 'linear', parameter: w, dy: dy!, x, segments: layout.segments } as const
    tape.addSite(site)
    tape.addSite(site)
  })
  t.throws(() => tape.backwardFrom([[y, input()]]), { message: /names it once in `record`.*several gradient sites/ })
  t.end()
})

t.test('an op that does not name it is counted with the others', async (t) => {
  const w = weight()
  const once = sinkOf(w)
  const twice = sinkOf(w)
  for (const [sink, uses] of [
    [once, 1],
    [twice, 2],
  ] as const) {
    const tape = new Tape(device, sink)
    const x = tape.watch(input())
    const y = device.empty([3, 2], { layout })
    tape.record([y], [x], [], ([dy]) => {
      const site = { kind: 'linear', parameter: w, dy: dy!, x, segments: layout.segments } as const
      for (let use = 0; use < uses; use++) tape.addSite(site)
    })
    tape.backwardFrom([[y, input()]])
  }
  const norms = await once.squaredNorms().data()
  const doubled = await twice.squaredNorms().data()
  for (const unit of [0, 1]) {
    t.ok(Math.abs(Number(doubled[unit]) / (4 * Number(norms[unit])) - 1) < 3e-3, 'the norm of the sum')
  }
})

t.test('a head that is used twice, or as an ordinary matrix as well, is refused', (t) => {
  const w = weight()
  const head = (tape: Tape, x: Tensor) => meanPerUnit(tape, vocabularyLoss(tape, [{ x, weight: w }], targets))
  const run = (lossOn: (tape: Tape) => Tensor) => {
    const sink = sinkOf(w)
    const tape = new Tape(device, sink)
    tape.backward(lossOn(tape))
    sink.finish()
  }
  t.throws(() => run((tape) => add(tape, head(tape, input()), head(tape, input()))), {
    message: /several gradient sites/,
  })
  t.throws(() => run((tape) => head(tape, linear(tape, input(), w))), {
    message: /one embedding table with one output/,
  })
  t.doesNotThrow(() => run((tape) => head(tape, input())))
  t.end()
})

t.test('a written gradient of a head and rows of its table that nearly cancel keep the bound', async (t) => {
  const [size, vocabulary] = [96, 8]
  const one = new UnitLayout(device, Int32Array.of(0, 1), Int32Array.of(0))
  const next = uniforms(10)
  let largest = 0
  for (let trial = 0; trial < 100; trial++) {
    const [scale, apart] = [10 ** (8 * next()), 10 ** (-7 * next())]
    const row = Float32Array.from({ length: size }, () => scale * (next() - 0.5))
    const written = new Float32Array(vocabulary * size)
    written.set(row, 3 * size)
    const embedded = row.map((value) => -value * (1 + apart * next()))
    const table = new Parameter(device.zeros([vocabulary, size]))
    const gradient = device.scope(() => {
      const statistics = device.zeros([1, 3], { dtype: 'float64' })
      const sink = new ClippedSumSink(device, clippingGroups('flat', 1, [table]), 1, statistics)
      const head = { kind: 'perUnit', parameter: table, units: 1, firstUnit: 0 } as const
      const sum = device.tensor(written, [1, written.length])
      sink.addPart((part) => part.add({ ...head, gradient: sum }, false))
      const ids = device.tensor([3], [1], 'int32')
      const dy = device.tensor(embedded, [1, size])
      sink.add({ kind: 'embedding', parameter: table, dy, ids, segments: one.segments })
      sink.finish()
      return table.gradient.data()
    })
    const moved = Math.sqrt(((await gradient) as Float32Array).reduce((sum, value) => sum + value ** 2, 0))
    largest = Math.max(largest, moved)
  }
  t.ok(largest <= 1 && largest > 0.99, `at most ${largest}`)
})
