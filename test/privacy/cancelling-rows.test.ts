// Rows of one unit that cancel each other: what is left of them is small, and what they are added up from is not. Its
// rounding must not count for more than the bound, whatever else is in the batch, nor take digits of what others add.
import t, { type Test } from 'tap'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import type { GradientSite } from '../../lib/autograd/sinks.js'
import { Device, type Precision } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'
import { uniforms } from '../support/weights.js'

const emulated = new EmulatedCuda()
t.teardown(() => emulated.remove())
t.setTimeout(280_000)

const C = 0.1
const d = 24
const p = 8
const experts = 2
const vocabulary = 5

/** Input rows and output-gradient rows of a unit, with an id or an expert for each. */
interface Rows {
  readonly x: readonly number[][]
  readonly dy: readonly number[][]
  readonly ids: readonly number[]
}

const next = uniforms(11)
const row = (width: number, scale: number) => Array.from({ length: width }, () => scale * (2 * next() - 1))
const ordinary = (rows: number): Rows => ({
  x: Array.from({ length: rows }, () => row(d, 1)),
  dy: Array.from({ length: rows }, () => row(p, 1)),
  ids: Array.from({ length: rows }, (_, r) => r % vocabulary),
})

/** Rows with one input whose output gradients cancel but for a part `left` of each: all of one sign, then the others. */
function cancelling(pairs: number, scale: number, left: number): Rows {
  const x = row(d, 1)
  const dy = Array.from({ length: pairs }, () => row(p, scale))
  const opposite = dy.map((values) => values.map((value) => -value * (1 - left)))
  const both = [...dy, ...opposite]
  return { x: both.map(() => x), dy: both, ids: both.map(() => 1) }
}

/** The rows of the units on the device, and what a kind of parameter makes of them. */
interface Batch {
  readonly device: Device
  readonly layout: UnitLayout
  readonly dy: Tensor
  readonly x: Tensor
  readonly ids: Tensor
  readonly rows: readonly Rows[]
  tensor(values: readonly number[][], width: number): Tensor
}

type SitesOf = (batch: Batch, parameter: Parameter) => GradientSite[]

/** A parameter and its gradient sites. */
interface Kind {
  readonly shape: readonly number[]
  readonly sites: SitesOf
}

/** Sites of experts: the same rows at each, in slot order. */
function expertSegments({ device, layout, rows }: Batch) {
  const bounds = [0]
  const order: number[] = []
  for (let expert = 0; expert < experts; expert++) {
    for (const [unit, { ids }] of rows.entries()) {
      for (const r of ids.keys()) order.push(layout.offsets[unit]! + r)
      bounds.push(order.length)
    }
  }
  const offsets = device.tensor(Int32Array.from(bounds), [bounds.length], 'int32')
  const segments = {
    offsets,
    segments: experts * layout.units,
    units: layout.units,
    lengths: layout.segments.lengths,
    fanOut: experts,
  }
  return { segments, order }
}

const kinds: Record<string, Kind> = {
  'a weight': {
    shape: [p, d],
    sites: ({ dy, x, layout }, parameter) => [{ kind: 'linear', parameter, dy, x, segments: layout.segments }],
  },
  'a weight used twice': {
    shape: [p, d],
    sites: (batch, parameter) => {
      const { x, rows, layout } = batch
      // A unit's rows of the second use are the opposite of those of the first, but for a part of each.
      const part = (sign: number) => rows.flatMap((unit) => unit.dy.map((values) => values.map((v) => sign * v)))
      return [1, -0.999].map((sign) => {
        return { kind: 'linear', parameter, dy: batch.tensor(part(sign), p), x, segments: layout.segments }
      })
    },
  },
  'weights of experts': {
    shape: [experts, p, d],
    sites: (batch, parameter) => {
      const { segments, order } = expertSegments(batch)
      const dyRows = batch.rows.flatMap((unit) => unit.dy)
      const dy = batch.tensor(
        order.map((r) => dyRows[r]!),
        p,
      )
      const xRows = batch.device.tensor(Int32Array.from(order), [order.length], 'int32')
      return [{ kind: 'linear', parameter, dy, x: batch.x, xRows, segments }]
    },
  },
  'a bias': {
    shape: [p],
    sites: ({ dy, layout }, parameter) => [{ kind: 'bias', parameter, dy, segments: layout.segments }],
  },
  'biases of experts': {
    shape: [experts, p],
    sites: (batch, parameter) => {
      const { segments, order } = expertSegments(batch)
      const dyRows = batch.rows.flatMap((unit) => unit.dy)
      const dy = batch.tensor(
        order.map((r) => dyRows[r]!),
        p,
      )
      return [{ kind: 'bias', parameter, dy, segments }]
    },
  },
  'an embedding': {
    shape: [vocabulary, p],
    sites: ({ dy, ids, layout }, parameter) => [{ kind: 'embedding', parameter, dy, ids, segments: layout.segments }],
  },
  // Each head row meets an embedding row that takes its gradient away, but for its last digits.
  'a table used as embedding and as head': {
    shape: [p, d],
    sites: (batch, parameter) => {
      const { x, ids, rows, layout } = batch
      const pairs = rows.flatMap((unit) =>
        unit.dy.map((values, r) => ({ g: values[0]!, x: unit.x[r]!, id: unit.ids[r]! })),
      )
      const head = pairs.map(({ g, id }) => Array.from({ length: p }, (_, v) => (v === id ? g : 0)))
      const table = pairs.map(({ g, x }) => x.map((value) => -g * value * (1 - 2 ** -20)))
      const { segments } = layout
      return [
        { kind: 'embedding', parameter, dy: batch.tensor(table, d), ids, segments },
        { kind: 'linear', parameter, dy: batch.tensor(head, p), x, segments },
      ]
    },
  },
  // What normalisations make of their rows: a sum per unit in float32, which is the gradient that is clipped.
  'the gain of a normalisation': {
    shape: [p],
    sites: ({ device, dy, layout }, parameter) => {
      const gradient = device.empty([layout.units, p])
      const ones = new Float32Array(layout.rows * p).fill(1)
      device.run('rmsNormBackward', {
        dy,
        x: device.tensor(ones, [layout.rows, p], dy.dtype as Precision),
        weight: undefined,
        rstd: device.tensor(new Float32Array(layout.rows).fill(1), [layout.rows]),
        segmentOffsets: layout.segments.offsets,
        dx: device.empty([layout.rows, p], { dtype: dy.dtype }),
        dWeight: gradient,
        rows: layout.rows,
        d: p,
        units: layout.units,
      })
      return [{ kind: 'perUnit', parameter, gradient, units: layout.units }]
    },
  },
}

const nobody: Rows = { x: [], dy: [], ids: [] }

/** The clipped sum over the units. */
function clippedSum(device: Device, kind: Kind, rows: readonly Rows[]): Promise<Float64Array> {
  return device.scopeAsync(async () => {
    const bounds = [0]
    for (const unit of rows) bounds.push(bounds.at(-1)! + unit.x.length)
    const layout = new UnitLayout(device, Int32Array.from(bounds), Int32Array.from(rows.keys()))
    const tensor = (values: readonly number[][], width: number) =>
      device.tensor(Float32Array.from(values.flat()), [values.length, width], device.info.precision)
    const batch: Batch = {
      device,
      layout,
      rows,
      tensor,
      x: tensor(
        rows.flatMap((unit) => unit.x),
        d,
      ),
      dy: tensor(
        rows.flatMap((unit) => unit.dy),
        p,
      ),
      ids: device.tensor(Int32Array.from(rows.flatMap((unit) => unit.ids)), [layout.rows], 'int32'),
    }
    using parameter = new Parameter(device.zeros([...kind.shape]))
    const statistics = device.zeros([1, 3], { dtype: 'float64' })
    const sink = new ClippedSumSink(device, clippingGroups('flat', C, [parameter]), rows.length, statistics)
    for (const site of kind.sites(batch, parameter)) sink.add(site)
    sink.finish()
    return Float64Array.from((await parameter.gradient.data()) as Float32Array)
  })
}

const distance = (a: Float64Array, b: Float64Array) => Math.hypot(...a.map((value, i) => value - b[i]!))

async function keepsTheBound(t: Test, device: Device): Promise<void> {
  const others = [5, 1, 12].map(ordinary)
  for (const [name, kind] of Object.entries(kinds)) {
    const without = await clippedSum(device, kind, [nobody, ...others])
    const zero = new Float64Array(without.length)
    const crowd: Rows[] = []
    let worst = 0
    for (const scale of [1, 1e4, 1e7, 1e12]) {
      for (const left of [0, 1e-7, 1e-4, 0.03]) {
        for (const pairs of [1, 3]) {
          const hostile = cancelling(pairs, scale, left)
          crowd.push(hostile)
          const alone = distance(await clippedSum(device, kind, [hostile]), zero)
          const moved = distance(await clippedSum(device, kind, [hostile, ...others]), without)
          worst = Math.max(worst, alone, moved)
        }
      }
    }
    t.ok(worst <= C, `${name}: rows that cancel move the sum by at most ${worst}`)
    // One unit of ordinary rows before all of the others: the rounding of what they cancel does not depend on it.
    const one = ordinary(3)
    const among = distance(
      await clippedSum(device, kind, [one, ...crowd]),
      await clippedSum(device, kind, [nobody, ...crowd]),
    )
    t.ok(among <= C, `${name}: among units whose rows cancel, ordinary rows move the sum by ${among}`)
  }
}

t.test('on a CPU', async (t) => {
  using device = Device.open('cpu', { threads: 1 })
  await keepsTheBound(t, device)
})

for (const precision of ['float32', 'bfloat16'] satisfies Precision[]) {
  t.test(`on a CUDA device in ${precision}`, async (t) => {
    emulated.use()
    using device = Device.open('cuda', { precision })
    await keepsTheBound(t, device)
  })
}
