import t, { type Test } from 'tap'
import { Device } from '../../lib/engine/device.js'
import type { LossFunction, UnitBatch } from '../../lib/nn/accumulate.js'
import type { Module } from '../../lib/nn/module.js'
import { sgd } from '../../lib/optim/sgd.js'
import type { ClippingMode } from '../../lib/privacy/clipping.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { type FeatureExample, FeatureModel, featureBatch, featureSize } from '../support/feature-model.js'
import { batchOf, type Example, examples, tinyConfig, tinyModel } from '../support/models.js'
import { TokenModel } from '../support/token-model.js'
import { difference, norm, readWeights, uniforms, type Weights, writeWeights } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const expectedBatchSize = 4
const maxGradNorm = 0.5

interface Subject<E, B extends UnitBatch> {
  readonly module: Module
  readonly loss: LossFunction<B>
  readonly batch: (units: readonly E[]) => B
}

/** One noiseless step of plain SGD at learning rate 1, the same step for all: what it did to the weights. */
function updater<E, B extends UnitBatch>({ module, loss, batch }: Subject<E, B>, clipping: ClippingMode) {
  const optimizer = sgd(module.parameters(), { learningRate: 1 })
  const options = { optimizer, key: seedKey(1), noiseMultiplier: 0, maxGradNorm, clipping, expectedBatchSize }
  let first: Weights
  return async (units: readonly E[]) => {
    first ??= await readWeights(module)
    writeWeights(module, first)
    using privately = new PrivateOptimizer(options)
    await privately.step(7, units.length > 0 ? [() => batch(units)] : [], loss)
    const moved = difference(await readWeights(module), first)
    writeWeights(module, first)
    return moved
  }
}

/** ||update(D with x) - update(D)|| * expectedBatchSize <= C, for every x, added at each end of D and alone. */
async function boundsEvery<E, B extends UnitBatch>(
  t: Test,
  subject: Subject<E, B>,
  clipping: ClippingMode,
  others: readonly E[],
  candidates: readonly (readonly [string, E])[],
) {
  const update = updater(subject, clipping)
  const without = await update(others)
  let largest = 0
  let worst = ''
  for (const [name, x] of candidates) {
    for (const neighbour of [
      [...others, x],
      [x, ...others],
    ]) {
      const moved = norm(difference(await update(neighbour), without)) * expectedBatchSize
      if (!(moved <= largest)) [largest, worst] = [moved, name]
      if (!(moved <= maxGradNorm)) t.fail(`${clipping} ${name}: ${moved}`)
    }
  }
  t.ok(largest <= maxGradNorm, `${clipping}: at most ${largest} (${worst})`)
  t.ok(largest > (clipping === 'per-layer' ? 0.5 : 0.9) * maxGradNorm, `${clipping}: some example meets the bound`)
}

const modes = ['flat', 'per-layer', 'automatic'] as const

function randomTexts(count: number): (readonly [string, Example])[] {
  const next = uniforms(17)
  const lengths = Array.from({ length: count }, () => Math.floor(next() ** 3 * tinyConfig.maxPositions))
  return examples(lengths, tinyConfig, 5).map((x, i) => [`random text ${i}`, { ...x, unit: 100 + i }] as const)
}

/** Texts that stretch what a text can be: nothing, one token, one token repeated, the longest. */
function hostileTexts(): (readonly [string, Example])[] {
  const unit = 99
  const longest = tinyConfig.maxPositions
  const repeated = Array.from({ length: tinyConfig.vocabularySize }, (_, token) => [
    `token ${token} ${longest} times`,
    { unit, ids: new Array<number>(longest).fill(token), label: token % 3 },
  ]) as [string, Example][]
  return [
    ['empty', { unit, ids: [], label: 0 }],
    ['no class', { unit, ids: [1, 2, 3], label: -1 }],
    ['one token', { unit, ids: [18], label: 2 }],
    ['every token', { unit, ids: Array.from({ length: 19 }, (_, token) => token), label: 1 }],
    ...repeated,
  ]
}

t.test('one text moves a noiseless update by at most the bound', async (t) => {
  const model = tinyModel(device, { dropout: 0.2, expertsPerToken: 2 })
  const subject = {
    module: model,
    loss: model.loss.bind(model),
    batch: (units: readonly Example[]) => batchOf(device, units),
  }
  const others = examples([5, 1, 17, 0, 40], tinyConfig, 3)
  const texts = [...hostileTexts(), ...randomTexts(250)]
  await boundsEvery(t, subject, 'flat', others, texts)
  for (const mode of ['per-layer', 'automatic'] as const)
    await boundsEvery(t, subject, mode, others, texts.slice(0, 60))
  await boundsEvery(t, subject, 'flat', [], texts.slice(0, 40))
})

t.test('so does one text through a tied head, gated experts, capacity, jitter and dropout', async (t) => {
  const model = new TokenModel(device, {
    tied: true,
    norm: 'rms',
    causal: true,
    keyValueHeads: 1,
    dropout: 0.1,
    mixture: {
      gated: true,
      expertsPerToken: 2,
      capacityPerSequence: 3,
      routerJitter: 0.1,
      zLoss: 1e-3,
      balanceLoss: 5,
    },
  })
  const subject = { module: model, loss: model.loss, batch: (units: readonly Example[]) => batchOf(device, units) }
  const others = examples([5, 1, 17, 0, 40], tinyConfig, 3)
  for (const mode of modes) await boundsEvery(t, subject, mode, others, [...hostileTexts(), ...randomTexts(60)])
})

t.test('numbers of any kind move it by at most the bound', async (t) => {
  const model = new FeatureModel(device)
  const subject = {
    module: model,
    loss: model.loss,
    batch: (units: readonly FeatureExample[]) => featureBatch(device, units),
  }
  const next = uniforms(4)
  const row = (scale: number) => Array.from({ length: featureSize }, () => scale * (2 * next() - 1))
  const others = [3, 1, 0, 8].map((length, unit) => ({
    unit,
    rows: Array.from({ length }, () => row(1)),
    label: unit % 2,
  }))
  const strange = [Number.NaN, Infinity, -Infinity, 1e30, -1e30, 3e38, 1e-30, 1e-45, 300, 0]
  const hostile = strange.flatMap((value): [string, FeatureExample][] => [
    [`all ${value}`, { unit: 50, rows: [new Array<number>(featureSize).fill(value)], label: 0 }],
    [`one ${value}`, { unit: 50, rows: [row(1), row(1).with(2, value)], label: 1 }],
    [
      `${value} and its opposite`,
      { unit: 50, rows: [new Array(featureSize).fill(value), new Array(featureSize).fill(-value)], label: 0 },
    ],
    [`300 rows of ${value}`, { unit: 50, rows: new Array(300).fill(new Array(featureSize).fill(value)), label: 1 }],
  ])
  const random = Array.from({ length: 200 }, (_, i): [string, FeatureExample] => {
    const rows = Array.from({ length: Math.floor(next() * 20) }, () => row(10 ** (8 * next() - 4)))
    return [`random numbers ${i}`, { unit: 100 + i, rows, label: i % 2 }]
  })
  for (const mode of modes) await boundsEvery(t, subject, mode, others, [...hostile, ...random])
})
