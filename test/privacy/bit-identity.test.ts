import t, { type Test } from 'tap'
import { splitIntoMicroBatches } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import type { TextBatch } from '../../lib/models/text-batch.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { type FeatureExample, FeatureModel, featureBatch, featureSize } from '../support/feature-model.js'
import { batchOf, type Example, examples, tinyConfig } from '../support/models.js'
import { rowsOfUnit, type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { TokenModel, type TokenModelConfig } from '../support/token-model.js'
import { difference, flat, readWeights, uniforms } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const configs: Record<string, TokenModelConfig> = {
  'top-1 with dropout and jitter': { dropout: 0.2, mixture: { routerJitter: 0.1 } },
  'top-2 with capacity': { causal: true, mixture: { expertsPerToken: 2, capacityPerSequence: 3, zLoss: 0.01 } },
  'gated, tied': { tied: true, norm: 'rms', keyValueHeads: 1, mixture: { gated: true, expertsPerToken: 2 } },
}

const units = examples([5, 9, 17, 40, 0, 3], tinyConfig, 2)
const watched = 2

/** The watched unit among other companions, in every way that must not matter. */
function rearrangements(): Record<string, { units: Example[]; index: number }> {
  const x = units[watched]!
  const around = (others: readonly Example[], index = watched) => ({ units: others.toSpliced(index, 1, x), index })
  const mapped = (change: (unit: Example) => Example) => around(units.map(change))
  return {
    replaced: around(examples([8, 30, 1, 2, 5, 64], tinyConfig, 77)),
    blanked: mapped((unit) => ({ ...unit, ids: [] })),
    'one blanked': around(units.with(0, { ...units[0]!, ids: [] })),
    'twice as long': mapped((unit) => ({ ...unit, ids: [...unit.ids, ...unit.ids] })),
    'all on one token': mapped((unit) => ({ ...unit, ids: unit.ids.map(() => 7) })),
    reversed: { units: units.toReversed(), index: units.length - 1 - watched },
    first: { units: [x, ...units.toSpliced(watched, 1)], index: 0 },
    alone: { units: [x], index: 0 },
    'among sixty': { units: [...examples(new Array<number>(60).fill(11), tinyConfig, 5), x], index: 60 },
  }
}

function subjectOn(device: Device, config: TokenModelConfig): Subject<Example, TextBatch> {
  const module = new TokenModel(device, config)
  return { device, module, loss: module.loss, batch: (units) => batchOf(device, units) }
}

/** Norms of one unit by parameter, and its rows at every gradient site. */
async function everything(subject: Subject<Example, TextBatch>, units: readonly Example[], index: number) {
  const random = stepRandom(subject.device)
  const norms = await squaredNormsByParameter(subject, units, random)
  return {
    norms: [...norms].map(([name, values]) => [name, values[index]]),
    rows: [...(await rowsOfUnit(subject, units, index, random))],
  }
}

for (const [name, config] of Object.entries(configs)) {
  t.test(`bits of a unit whatever the others are: ${name}`, async (t) => {
    const subject = subjectOn(device, config)
    const before = await everything(subject, units, watched)
    t.ok(before.rows.length > 20 && before.rows.every(([, bits]) => !bits.startsWith('0 ')), 'rows at every site')
    const other = await everything(subject, units, watched + 1)
    t.notSame(other.rows, before.rows, 'another unit has other rows')
    t.notSame(other.norms, before.norms, 'and other norms')
    for (const [change, { units, index }] of Object.entries(rearrangements())) {
      t.strictSame(await everything(subject, units, index), before, change)
    }
  })

  t.test(`bits of a unit whatever the threads: ${name}`, async (t) => {
    const before = await everything(subjectOn(device, config), units, watched)
    for (const threads of [1, 3]) {
      using other = Device.open('cpu', { threads })
      t.strictSame(await everything(subjectOn(other, config), units, watched), before, `${threads} threads`)
    }
  })

  t.test(`bits of a unit on older processors: ${name}`, async (t) => {
    t.teardown(() => {
      delete process.env.DP_MOE_ISA
    })
    for (const instructionSet of ['base', 'avx2']) {
      process.env.DP_MOE_ISA = instructionSet
      using other = Device.open('cpu', { threads: 2 })
      t.comment(`${instructionSet}: ${other.info.instructionSet}`)
      const subject = subjectOn(other, config)
      const before = await everything(subject, units, watched)
      for (const [change, { units, index }] of Object.entries(rearrangements())) {
        t.strictSame(await everything(subject, units, index), before, `${instructionSet}: ${change}`)
      }
    }
  })
}

t.test('a unit with other numbers leaves the others as they are', async (t) => {
  const model = new FeatureModel(device)
  const random = stepRandom(device)
  const next = uniforms(3)
  const subject: Subject<FeatureExample, ReturnType<typeof featureBatch>> = {
    device,
    module: model,
    loss: model.loss,
    batch: (units) => featureBatch(device, units),
  }
  const others = [3, 12, 1].map((length, unit) => ({
    unit,
    rows: Array.from({ length }, () => Array.from({ length: featureSize }, next)),
    label: unit % 2,
  }))
  const before = await rowsOfUnit(subject, others, 1, random)
  const norms = await squaredNormsByParameter(subject, others, random)
  for (const value of [Number.NaN, Infinity, 1e30, 3e38, 0]) {
    const x = { unit: 9, rows: [new Array<number>(featureSize).fill(value)], label: 0 }
    const beside = [x, ...others]
    t.strictSame(await rowsOfUnit(subject, beside, 2, random), before, `rows beside ${value}`)
    const changed = await squaredNormsByParameter(subject, beside, random)
    for (const [name, values] of norms) t.strictSame(changed.get(name)!.slice(1), values, `${name} beside ${value}`)
  }
})

/** The clipped sum of the units, through one private step without noise cut into micro-batches of at most `maxRows`. */
async function stepWith(t: Test, subject: Subject<Example, TextBatch>, maxRows: number) {
  const ranges = splitIntoMicroBatches(
    units.map(({ ids }) => ids.length),
    maxRows,
  )
  t.comment(`${ranges.length} micro-batches`)
  const before = await readWeights(subject.module)
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(subject.module.parameters(), { learningRate: 1 }),
    key: seedKey(3),
    noiseMultiplier: 0,
    maxGradNorm: 0.4,
    expectedBatchSize: 1,
  })
  const parts = ranges.map(
    ({ start, end }) =>
      () =>
        subject.batch(units.slice(start, end)),
  )
  const statistics = await optimizer.step(4, parts, subject.loss)
  return { sum: flat(difference(await readWeights(subject.module), before)), statistics }
}

t.test('any cut into micro-batches gives the same step', async (t) => {
  const config = configs['top-1 with dropout and jitter']!
  const whole = await stepWith(t, subjectOn(device, config), 1000)
  for (const maxRows of [1, 14, 40]) {
    const { sum, statistics } = await stepWith(t, subjectOn(device, config), maxRows)
    const furthest = sum.reduce((most, value, i) => Math.max(most, Math.abs(value - whole.sum[i]!)), 0)
    t.ok(furthest < 1e-6, `${maxRows} rows: ${furthest}`)
    t.equal(statistics.units, whole.statistics.units)
    t.equal(statistics.clippedFraction, whole.statistics.clippedFraction)
    t.ok(Math.abs(statistics.meanGradNorm - whole.statistics.meanGradNorm) < 1e-12 * whole.statistics.meanGradNorm)
  }
})
