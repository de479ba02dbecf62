import t from 'tap'
import { type Activation, activate, gatedActivate } from '../../lib/autograd/activation.js'
import { attention } from '../../lib/autograd/attention.js'
import { add, dropout, multiply, scale } from '../../lib/autograd/elementwise.js'
import { embedding, meanPerUnit, poolPerUnit } from '../../lib/autograd/embedding.js'
import { layoutOf, UnitLayout } from '../../lib/autograd/layout.js'
import { crossEntropy, softmax } from '../../lib/autograd/losses.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { meanRows, sumRows } from '../../lib/autograd/reductions.js'
import { combine, route, routerLoss, toSlots } from '../../lib/autograd/routing.js'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { Module } from '../../lib/nn/module.js'
import { checkLayer, type Layer } from '../support/gradients.js'
import {
  activations,
  logSumExp,
  type Rows,
  attention as referenceAttention,
  softmax as referenceSoftmax,
} from '../support/reference-layers.js'
import { stepRandom } from '../support/sites.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

class Nothing extends Module {}

const lengths = [4, 1, 0, 9]
const offsets = [0, 4, 5, 5]

interface Op {
  readonly lengths?: readonly number[]
  forward(tape: Tape, x: Tensor): Tensor | { y: Tensor; loss: Tensor }
  reference(x: Rows, index: number): Rows | { y: Rows; loss: number }
}

/** The op alone, its gradient with respect to its input. */
function layer(op: Op, inputSize = 6): Layer {
  return {
    device,
    module: new Nothing(),
    inputSize,
    lengths: op.lengths ?? lengths,
    forward: (x, { tape }) => {
      const result = op.forward(tape, x)
      return 'y' in result ? result : { y: result }
    },
    reference: (x, _get, index) => {
      const result = op.reference(x, index)
      return 'y' in result ? result : { y: result }
    },
  }
}

const ids = Int32Array.from({ length: 14 }, (_, row) => row % 6)
const rowWeights = Float32Array.from({ length: 14 }, (_, row) => 0.1 * row - 0.4)

const ops: Record<string, Op> = {
  add: {
    forward: (tape, x) => add(tape, x, activate(tape, x, 'silu'), 0.3, -2),
    reference: (x) => x.map((row) => row.map((value) => 0.3 * value - 2 * activations.silu(value))),
  },
  'add, the same twice': {
    forward: (tape, x) => add(tape, x, x, 1.5, 0.25),
    reference: (x) => x.map((row) => row.map((value) => 1.75 * value)),
  },
  scale: {
    forward: (tape, x) => scale(tape, scale(tape, x, 1), -1.7),
    reference: (x) => x.map((row) => row.map((value) => -1.7 * value)),
  },
  multiply: {
    forward: (tape, x) => multiply(tape, x, scale(tape, x, 0.4)),
    reference: (x) => x.map((row) => row.map((value) => 0.4 * value * value)),
  },
  'poolPerUnit, mean': {
    forward: (tape, x) => poolPerUnit(tape, x),
    reference: (x) => [x[0]!.map((_, j) => x.reduce((sum, row) => sum + row[j]!, 0) / x.length)],
  },
  'poolPerUnit, weighted sum': {
    forward: (tape, x) => poolPerUnit(tape, x, device.tensor(rowWeights, [14]).withLayout(layoutOf(x))),
    reference: (x, index) => [
      x[0]!.map((_, j) => x.reduce((sum, row, s) => sum + rowWeights[offsets[index]! + s]! * row[j]!, 0)),
    ],
  },
  'crossEntropy and meanPerUnit': {
    forward: (tape, x) => {
      const targets = device.tensor(ids, [14], 'int32').withLayout(layoutOf(x))
      return { y: x, loss: meanPerUnit(tape, crossEntropy(tape, x, targets)) }
    },
    reference: (x, index) => ({
      y: x,
      loss: x.reduce((sum, row, s) => sum + logSumExp(row) - row[ids[offsets[index]! + s]!]!, 0) / x.length,
    }),
  },
  'attention of one head with a scale': {
    forward: (tape, x) => attention(tape, x, activate(tape, x, 'gelu'), scale(tape, x, 2), { heads: 1, scale: 0.7 }),
    reference: (x) => {
      const k = x.map((row) => row.map(activations.gelu))
      const v = x.map((row) => row.map((value) => 2 * value))
      return referenceAttention(x, k, v, { heads: 1, scale: 0.7 })
    },
  },
  'route, toSlots and combine': {
    // The op has no derivative through toSlots, so slots hold constants: what is tested is the gradient of the gates.
    forward: (tape, x) => {
      const { gate, plan } = route(tape, x, { expertsPerToken: 2, normalize: false, capacityPerSequence: 0 })
      const rows = device
        .tensor(
          Float32Array.from({ length: 84 }, (_, i) => i % 6),
          [14, 6],
        )
        .withLayout(layoutOf(x))
      return combine(tape, toSlots(tape, rows, plan), gate, plan)
    },
    reference: (x) =>
      x.map((row) => {
        const top = referenceSoftmax(row).toSorted((a, b) => b - a)
        return row.map((_, j) => j * (top[0]! + top[1]!))
      }),
  },
  'routerLoss alone': {
    forward: (tape, x) => {
      const routing = route(tape, x, { expertsPerToken: 2, normalize: true, capacityPerSequence: 1 })
      return { y: x, loss: routerLoss(tape, x, routing, { balance: 0.8, z: 0.3 }) }
    },
    reference: (x) => {
      const probabilities = x.map(referenceSoftmax)
      const counts = x[0]!.map(() => 0)
      for (const p of probabilities) {
        const order = p.map((_, e) => e).sort((a, b) => p[b]! - p[a]!)
        for (const e of order.slice(0, 2)) counts[e]!++
      }
      const n = x.length
      const balance = counts.reduce((total, count, e) => {
        return total + (6 / 2) * (count / n) * (probabilities.reduce((sum, p) => sum + p[e]!, 0) / n)
      }, 0)
      return { y: x, loss: 0.8 * balance + (0.3 * x.reduce((sum, row) => sum + logSumExp(row) ** 2, 0)) / n }
    },
  },
}

for (const [name, op] of Object.entries(ops)) {
  t.test(`gradient of ${name}`, async (t) => {
    await checkLayer(t, name, layer(op))
  })
}

t.test('gradients of activations', async (t) => {
  for (const activation of ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh'] satisfies Activation[]) {
    const act = activations[activation]
    await checkLayer(
      t,
      activation,
      layer({
        forward: (tape, x) => activate(tape, x, activation),
        reference: (x) => x.map((row) => row.map(act)),
      }),
    )
    await checkLayer(
      t,
      `gated ${activation}`,
      layer({
        forward: (tape, x) => gatedActivate(tape, scale(tape, x, 1.5), x, activation),
        reference: (x) => x.map((row) => row.map((value) => act(1.5 * value) * value)),
      }),
    )
  }
})

t.test('gradient of dropout: the mask of the forward pass', async (t) => {
  const random = stepRandom(device)
  const layout = new UnitLayout(device, Int32Array.of(0, 4, 5, 5, 14), Int32Array.of(0, 1, 2, 3))
  const ones = device.empty([14, 6], { layout }).fill(1)
  const mask = await dropout(new Tape(device), ones, 0.4, random, 2).data()
  const op: Op = {
    forward: (tape, x) => dropout(tape, x, 0.4, random, 2),
    reference: (x, index) =>
      x.map((row, s) => row.map((value, j) => value * Number(mask[(offsets[index]! + s) * 6 + j]))),
  }
  await checkLayer(t, 'dropout', layer(op))
  t.equal(dropout(new Tape(device), ones, 0, random, 2), ones, 'rate 0 is the input itself')
})

t.test('embedding: rows of the table, and the sum over repeated ids', async (t) => {
  const table = new Parameter(
    device.tensor(
      Float32Array.from({ length: 12 }, (_, i) => i / 16),
      [4, 3],
    ),
  )
  const layout = new UnitLayout(device, Int32Array.of(0, 3, 4), Int32Array.of(0, 1))
  const tokens = device.tensor([2, 0, 2, 3], [4], 'int32').withLayout(layout)
  const tape = new Tape(device, new SumSink())
  const y = embedding(tape, tokens, table, 2)
  const rows = [
    [12, 14, 16],
    [0, 2, 4],
    [12, 14, 16],
    [18, 20, 22],
  ].map((row) => row.map((value) => value / 16))
  t.same([...(await y.data())], rows.flat())
  const labels = device.tensor([0, 1], [2], 'int32').withLayout(layout.perUnit)
  tape.backward(crossEntropy(tape, poolPerUnit(tape, y), labels))
  const gradient = (await table.gradient.data()) as Float32Array
  const slope = (unit: number, rows: number[][]) => {
    const pooled = [0, 1, 2].map((j) => rows.reduce((sum, row) => sum + row[j]!, 0) / rows.length)
    return referenceSoftmax(pooled).map((p, j) => (2 * (p - (j === unit ? 1 : 0))) / rows.length)
  }
  const first = slope(0, rows.slice(0, 3))
  const second = slope(1, rows.slice(3))
  const expected = [first, [0, 0, 0], first.map((value) => 2 * value), second].flat()
  for (const [i, value] of expected.entries()) {
    t.ok(Math.abs(gradient[i]! - value) < 1e-6, `entry ${i}: ${gradient[i]} ${value}`)
  }
  for (const id of [4, -1]) {
    embedding(new Tape(device), device.tensor([id, 0, 0, 0], [4], 'int32').withLayout(layout), table)
    await t.rejects(device.synchronize(), `id ${id} is outside the table`)
  }
})

t.test('losses at the ends: huge logits, no target, not a number', async (t) => {
  const layout = new UnitLayout(device, Int32Array.of(0, 1, 2, 3, 4), Int32Array.of(0, 1, 2, 3)).perUnit
  const logits = device.tensor([1e4, -1e4, -1e4, 1e4, 1, 2, Number.NaN, 0], [4, 2]).withLayout(layout)
  const targets = device.tensor([0, 0, -1, 1], [4], 'int32').withLayout(layout)
  const tape = new Tape(device, new SumSink())
  tape.watch(logits)
  const loss = crossEntropy(tape, logits, targets)
  tape.backward(loss)
  const [right, wrong, none, broken] = [...(await loss.data())]
  t.same([right, wrong, none], [0, 2e4, 0])
  t.ok(Number.isNaN(broken))
  const gradient = [...(await tape.gradientOf(logits)!.data())]
  t.same(gradient.slice(0, 6), [0, 0, -1, 1, 0, 0])
  const probabilities = [...(await softmax(new Tape(device), logits).data())]
  t.same(probabilities.slice(0, 4), [1, 0, 0, 1])
})

t.test('sums and means over rows that belong to no unit', async (t) => {
  const x = device.tensor([1, 2, 3, 4, 5, 9], [3, 2])
  t.same([...(await sumRows(new Tape(device), x).data())], [9, 15])
  t.same([...(await meanRows(new Tape(device), x).data())], [3, 5])
})
