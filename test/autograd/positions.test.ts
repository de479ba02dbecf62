import t from 'tap'
import { attention } from '../../lib/autograd/attention.js'
import { clamp } from '../../lib/autograd/elementwise.js'
import { embedding } from '../../lib/autograd/embedding.js'
import { requireUnits, UnitLayout } from '../../lib/autograd/layout.js'
import { rmsNorm } from '../../lib/autograd/normalisation.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { rotate } from '../../lib/autograd/rotary.js'
import type { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { Module } from '../../lib/nn/module.js'
import { checkLayer, type Layer } from '../support/gradients.js'
import { type Get, type Rows, softmax } from '../support/reference-layers.js'
import { uniforms } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const next = uniforms(4)
const made = (...shape: number[]) => {
  const size = shape.reduce((product, extent) => product * extent, 1)
  return new Parameter(
    device.tensor(
      Float32Array.from({ length: size }, () => 2 * next() - 1),
      shape,
    ),
  )
}

class Tables extends Module {
  readonly weight = made(6)
  readonly bias = made(4, 2)
  readonly keys = made(5, 6)
}

const lengths = [4, 1, 0, 9]
const heads = 2
const inverseFrequency = [0.9, 0.2, 0.05]

function layer(
  forward: (tape: Tape, x: Tensor, tables: Tables) => Tensor,
  reference: (x: Rows, get: Get) => Rows,
): Layer {
  const module = new Tables()
  return {
    device,
    module,
    inputSize: 6,
    lengths,
    forward: (x, { tape }) => ({ y: forward(tape, x, module) }),
    reference: (x, get) => ({ y: reference(x, get) }),
  }
}

/** Attention of `heads` heads of 3 with scores that may have a bias. */
function attend(
  q: Rows,
  k: Rows,
  v: Rows,
  biasAt: (query: number, key: number, head: number) => number,
  causal: boolean,
): Rows {
  const shift = k.length - q.length
  return q.map((row, i) =>
    Array.from({ length: heads }, (_, head) => {
      const part = (values: readonly number[]) => values.slice(3 * head, 3 * head + 3)
      const seen = causal ? k.slice(0, Math.max(0, i + shift + 1)) : k
      if (seen.length === 0) return [0, 0, 0]
      const scores = seen.map(
        (key, j) =>
          part(key).reduce((sum, value, c) => sum + value * part(row)[c]!, 0) / Math.sqrt(3) +
          biasAt(i + shift, j, head),
      )
      const weights = softmax(scores)
      return [0, 1, 2].map((c) => weights.reduce((sum, weight, j) => sum + weight * part(v[j]!)[c]!, 0))
    }).flat(),
  )
}

/** Buckets of the distances -3 to 3; further ones count as the ends. */
const buckets = Int32Array.of(3, 2, 1, 0, 1, 1, 2)
const bucketAt = (distance: number) => buckets[Math.max(-3, Math.min(3, distance)) + 3]!
const tableOf = (values: Float64Array, row: number) => [...values.subarray(6 * row, 6 * row + 6)]

t.test('clamp', async (t) => {
  const reference = (x: Rows) => x.map((row) => row.map((value) => Math.min(0.8, Math.max(-0.5, value))))
  await checkLayer(
    t,
    'clamp',
    layer((tape, x) => clamp(tape, x, -0.5, 0.8), reference),
  )
  t.throws(
    () =>
      layer((tape, x) => clamp(tape, x, 1, 0), reference).forward(device.zeros([1, 6]), {
        tape: {} as Tape,
        training: false,
      }),
    { name: 'OutOfRangeError' },
  )
})

t.test('rotary embedding', async (t) => {
  const forward = (tape: Tape, x: Tensor) => {
    const layout = requireUnits('test', x)
    const positions = Int32Array.from({ length: layout.rows }, (_, row) => 3 * row)
    return rotate(
      tape,
      x,
      device.tensor(positions, [layout.rows], 'int32').withLayout(layout),
      device.tensor(inverseFrequency.slice(0, 3), [3]),
    )
  }
  let first = 0
  const reference = (x: Rows) => {
    const from = first
    first = (first + x.length) % 14
    return x.map((row, i) =>
      row.map((_, c) => {
        const pair = c % 3
        const angle = Math.fround(3 * (from + i) * Math.fround(inverseFrequency[pair]!))
        const other = c < 3 ? -row[c + 3]! : row[c - 3]!
        return row[c]! * Math.cos(angle) + other * Math.sin(angle)
      }),
    )
  }
  // References are asked for units in order, empty ones included, so that `first` is a unit's first row.
  await checkLayer(t, 'rotate', layer(forward, reference))
})

t.test('RMS norm of each head', async (t) => {
  class Norm extends Module {
    readonly weight = made(3)
  }
  const module = new Norm()
  await checkLayer(t, 'rmsNorm', {
    device,
    module,
    inputSize: 6,
    lengths,
    forward: (x, { tape }) => ({ y: rmsNorm(tape, x, module.weight, 1e-5, 2) }),
    reference: (x, get) => ({
      y: x.map((row) =>
        [0, 3].flatMap((at) => {
          const head = row.slice(at, at + 3)
          const scale = 1 / Math.sqrt(head.reduce((sum, value) => sum + value * value, 0) / 3 + 1e-5)
          return head.map((value, c) => value * scale * get('weight')[c]!)
        }),
      ),
    }),
  })
})

for (const causal of [false, true]) {
  const how = causal ? ', causal' : ''
  t.test(`attention with a bias by distance${how}`, async (t) => {
    await checkLayer(
      t,
      `bias${how}`,
      layer(
        (tape, x, { bias }) => attention(tape, x, x, x, { heads, causal, bias: { table: bias, buckets } }),
        (x, get) => attend(x, x, x, (query, key, head) => get('bias')[2 * bucketAt(key - query) + head]!, causal),
      ),
    )
  })

  t.test(`attention to other rows of the same units${how}`, async (t) => {
    // Five keys for every unit, more or fewer than it has queries.
    const ids = [0, 1, 2, 3, 4]
    await checkLayer(
      t,
      `keys${how}`,
      layer(
        (tape, x, { keys, bias }) => {
          const layout = requireUnits('test', x).beside(Int32Array.of(0, 5, 10, 15, 20), 'keys')
          const rows = device.tensor([...ids, ...ids, ...ids, ...ids], [20], 'int32').withLayout(layout)
          const k = embedding(tape, rows, keys)
          return attention(tape, x, k, k, { heads, causal, bias: { table: bias, buckets } })
        },
        (x, get) => {
          const k = ids.map((id) => tableOf(get('keys'), id))
          return attend(x, k, k, (query, key, head) => get('bias')[2 * bucketAt(key - query) + head]!, causal)
        },
      ),
    )
  })
}

t.test('rows of other units and shapes that do not fit are refused', async (t) => {
  const tape = {} as Tape
  const units = () => new UnitLayout(device, Int32Array.of(0, 2, 4), Int32Array.of(0, 1))
  const [here, there] = [units(), units()]
  const rows = (layout: UnitLayout) => device.zeros([layout.rows, 6], { layout })
  const positions = (layout: UnitLayout) => device.zeros([layout.rows], { dtype: 'int32', layout })
  const frequency = device.zeros([3])
  const mixing = { code: 'UNIT_MIXING' }
  t.throws(() => rotate(tape, rows(here), positions(there), frequency), mixing, 'positions of other units')
  t.throws(() => rotate(tape, rows(here), positions(here), positions(here)), mixing, 'frequencies of units')
  const beside = there.beside(Int32Array.of(0, 1, 2), 'keys')
  t.throws(() => attention(tape, rows(here), rows(beside), rows(beside), { heads }), mixing, 'keys of other units')
  const ofUnits = new Parameter(device.zeros([4, 2], { layout: here }))
  const options = { heads, bias: { table: ofUnits, buckets } }
  t.throws(() => attention({ device } as Tape, rows(here), rows(here), rows(here), options), mixing, 'a bias of units')
  const shape = { code: 'SHAPE_MISMATCH' }
  t.throws(() => here.beside(Int32Array.of(0, 1), 'keys'), shape, 'as many sequences')
  t.throws(
    () => rotate(tape, rows(here), positions(here), device.zeros([4])),
    shape,
    'a head size that does not divide',
  )
  const bias = { table: made(4, 3), buckets }
  t.throws(
    () => attention({ device } as Tape, rows(here), rows(here), rows(here), { heads, bias }),
    shape,
    'a column for each head',
  )
  t.throws(() => rmsNorm({ device } as Tape, rows(here), made(3), 1e-5, 3), shape, 'heads that do not divide')
})
