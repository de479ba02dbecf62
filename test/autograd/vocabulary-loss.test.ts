import t from 'tap'
import { meanPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { rowParts } from '../../lib/autograd/row-parts.js'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { vocabularyLoss } from '../../lib/autograd/vocabulary-loss.js'
import { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import type { Decoder } from '../../lib/models/decoder.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { architecture, type TokenUnit, tokenUnits } from '../support/architectures.js'
import { compareNorms } from '../support/brute-force-norms.js'
import { rowsOfUnit, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const lengths = [3, 0, 1, 20, 4, 4, 0, 9]
const [d, classes] = [6, 11]
const weight = new Parameter(new Initializer(device, 1).normal([classes, d], 0.7).tensor)
const rows = lengths.reduce((sum, length) => sum + length, 0)
const values = Float32Array.from({ length: rows * d }, (_, i) => Math.sin(i * 1.7))
const targetOf = Int32Array.from({ length: rows }, (_, row) => (row % 5 === 4 ? -1 : (row * 3) % classes))

const offsets = Int32Array.from([0, ...lengths]).map(
  (
    (sum) => (length) =>
      (sum += length)
  )(0),
)

/** Losses, input gradients, the weight's gradient, and squared norms with the clipped sum, in one pass of each kind. */
async function pass(lossOf: (tape: Tape, x: Tensor, targets: Tensor) => Tensor, scoreRows: number) {
  const layout = new UnitLayout(device, offsets, Int32Array.from(lengths.keys()))
  const x = device.tensor(values, [rows, d]).withLayout(layout)
  const targets = device.tensor(targetOf, [rows], 'int32').withLayout(layout)
  const plain = new Tape(device, new SumSink(), { scoreRows })
  const losses = lossOf(plain, plain.watch(x), targets)
  plain.backward(meanPerUnit(plain, losses))
  const dx = await plain.gradientOf(x)!.data()
  const sum = await weight.gradient.data()
  weight.gradient.fill(0)
  const groups = [{ name: 'all', parameters: [weight], bound: 0.5, release: 'gradient' as const }]
  const statistics = device.zeros([1, 3], { dtype: 'float64' })
  const sink = new ClippedSumSink(device, { mode: 'flat', maxGradNorm: 0.5, groups }, lengths.length, statistics)
  const tape = new Tape(device, sink, { scoreRows, releases: true })
  tape.backward(meanPerUnit(tape, lossOf(tape, x, targets)))
  const norms = await sink.squaredNorms().data()
  sink.finish()
  const clipped = await weight.gradient.data()
  weight.gradient.fill(0)
  return { losses: await losses.data(), dx, sum, norms, clipped, statistics: await statistics.data() }
}

const whole = (tape: Tape, x: Tensor, targets: Tensor) => crossEntropy(tape, linear(tape, x, weight), targets)
const inParts = (tape: Tape, x: Tensor, targets: Tensor) => vocabularyLoss(tape, [{ x, weight }], targets)

function near(a: ArrayLike<number>, b: ArrayLike<number>, tolerance: number): boolean {
  return a.length === b.length && Array.from(a).every((value, i) => Math.abs(value - b[i]!) <= tolerance)
}

t.test('scores in parts give what whole scores do', async (t) => {
  await device.scopeAsync(async () => {
    const truth = await pass(whole, 1)
    t.ok(truth.statistics[0]! > 2, 'units are clipped')
    for (const scoreRows of [1000, 20, 9, 4, 3, 1]) {
      const found = await pass(inParts, scoreRows)
      t.strictSame(found.losses, truth.losses, `${scoreRows} rows: losses, bit for bit`)
      t.strictSame(found.dx, truth.dx, 'gradients of x, bit for bit')
      t.ok(near(found.sum, truth.sum, 1e-6), 'sum of gradients')
      t.ok(near(found.clipped, truth.clipped, 1e-6), 'sum of clipped gradients')
      for (const [unit, length] of lengths.entries()) {
        const [norm, expected] = [found.norms[unit]!, truth.norms[unit]!]
        if (length <= scoreRows) t.equal(norm, expected, `norm of ${length} rows, bit for bit`)
        else t.ok(Math.abs(norm - expected) < 2e-3 * expected, `norm of ${length} rows in pieces`)
      }
    }
  })
})

t.test('parts: units stay whole unless they are longer, which are cut from their start', (t) => {
  const layout = new UnitLayout(device, offsets, Int32Array.from(lengths.keys()))
  const parts = rowParts(layout, 8)
  t.strictSame(
    parts.map(({ begin, end, firstUnit, endUnit, piece }) => [begin, end, firstUnit, endUnit, piece ?? 'whole']),
    [
      [0, 4, 0, 3, 'whole'],
      [4, 12, 3, 4, 'first'],
      [12, 20, 3, 4, 'middle'],
      [20, 24, 3, 4, 'last'],
      [24, 32, 4, 7, 'whole'],
      [32, 40, 7, 8, 'first'],
      [40, 41, 7, 8, 'last'],
    ],
  )
  t.strictSame(rowParts(new UnitLayout(device, Int32Array.of(0), new Int32Array(0)), 8), [], 'an empty batch has none')
  t.end()
})

t.test('what does not fit is refused with all shapes', (t) => {
  const layout = new UnitLayout(device, Int32Array.of(0, 2), Int32Array.of(0))
  const tape = new Tape(device, new SumSink())
  const targets = device.zeros([2], { dtype: 'int32', layout })
  t.throws(() => vocabularyLoss(tape, [{ x: device.zeros([2, d + 1], { layout }), weight }], targets), {
    code: 'SHAPE_MISMATCH',
    message: /x \[rows, d\].*\[2, 7\].*\[11, 6\]/,
  })
  t.throws(() => vocabularyLoss(tape, [{ x: device.zeros([2, d]), weight }], targets), { code: 'UNIT_MIXING' })
  t.end()
})

const units = tokenUnits([5, 9, 33, 0, 1, 64])

for (const name of ['decoder', 'tied decoder', 'switch transformer'] as const) {
  for (const scoreRows of [7, 40]) {
    t.test(`${name}: norms with ${scoreRows} rows of scores at a time`, async (t) => {
      for (const checkpoints of [false, true]) {
        const subject = { ...architecture(device, name), tape: { scoreRows } }
        subject.module.setActivationCheckpointing(checkpoints)
        await compareNorms(t, subject, units, name)
      }
    })
  }

  t.test(`${name}: a unit has the same bits whatever the others are`, async (t) => {
    const subject = { ...architecture(device, name), tape: { scoreRows: 7 } }
    const random = stepRandom(device)
    const everything = async (units: readonly TokenUnit[], index: number) => ({
      norms: [...(await squaredNormsByParameter(subject, units, random))].map(([name, norms]) => [name, norms[index]]),
      rows: [...(await rowsOfUnit(subject, units, index, random))],
    })
    for (const index of [0, 2]) {
      const before = await everything(units, index)
      t.strictSame(await everything([units[index]!], 0), before, 'alone')
      const others = tokenUnits([8, 64, 1], 9)
      t.strictSame(await everything([...others, units[index]!, others[0]!], 3), before, 'among others')
    }
  })
}

t.test('a table that is the head as well: clipped sums in parts', async (t) => {
  for (const name of ['tied decoder', 'switch transformer'] as const) {
    const { module, loss, batch } = architecture(device, name)
    const clipping = clippingGroups('flat', 0.3, module.parameters())
    const sumWith = async (scoreRows: number) => {
      const statistics = device.zeros([1, 3], { dtype: 'float64' })
      device.scope(() => {
        const sink = new ClippedSumSink(device, clipping, units.length, statistics)
        const tape = new Tape(device, sink, { scoreRows, releases: true })
        tape.backward(loss(batch(units), { tape, training: true, random: stepRandom(device) }))
        sink.finish()
      })
      const table = module.namedParameters().get('embedding.weight')!
      const sum = (await table.gradient.data()) as Float32Array
      for (const parameter of module.trainableParameters()) parameter.gradient.fill(0)
      return { sum, clipped: (await statistics.data())[0]! }
    }
    const whole = await sumWith(1000)
    t.ok(whole.clipped >= 4, `${name}: ${whole.clipped} units are clipped`)
    for (const scoreRows of [40, 7]) {
      const { sum, clipped } = await sumWith(scoreRows)
      t.equal(clipped, whole.clipped)
      t.ok(near(sum, whole.sum, 1e-6), `${name}, ${scoreRows} rows`)
    }
  }
})

t.test('a head with an adapter', async (t) => {
  const subject = architecture(device, 'decoder')
  const model = subject.module as Decoder
  model.head!.adapt(new Initializer(device, 4), { rank: 2 })
  model.nameParameters()
  perturb(device, model.head!, 0.3)
  for (const scoreRows of [1000, 7]) await compareNorms(t, { ...subject, tape: { scoreRows } }, units, 'adapter')
})
