import type { DType } from '../lib/engine/dtype.js'
import type { Device, Precision } from '../lib/engine/index.js'
import type { Tensor } from '../lib/engine/tensor.js'
import { SwitchClassifier } from '../lib/models/switch-classifier.js'
import { accumulateGradients, sumSink } from '../lib/nn/accumulate.js'
import { Initializer } from '../lib/nn/initializer.js'
import { adamW } from '../lib/optim/adam.js'
import { seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'
import { openRealCuda } from '../scripts/real-cuda.js'
import { referenceBatches, referenceConfig } from './reference-model.js'

/**
 * Times each family of ops and a whole private step beside a plain one on a CUDA device, in both precisions.
 *
 *     npm run bench:cuda
 *
 * Prints the time of a call, TFLOP/s or TB/s, and the share of what an H200 can reach: 790 TFLOP/s of dense products in
 * bfloat16, 4.8 TB/s. Refuses without a real device: an emulated one says nothing about speed.
 */
const reachable = { flops: 790e12, bytes: 4.8e12 }
const rows = 32768
const d = 2048
const experts = 8 // 4,096 rows each
const units = 512

interface Case {
  readonly name: string
  readonly flops?: number
  readonly bytes?: number
  readonly run: () => void
}

function casesOf(device: Device, precision: Precision): Case[] {
  const init = new Initializer(device, 1)
  const width = precision === 'bfloat16' ? 2 : 4
  const real = (...shape: number[]): Tensor => {
    const normal = init.normal(shape, 0.5).tensor
    if (precision === 'float32') return normal
    const y = device.empty(shape, { dtype: precision as DType })
    device.run('cast', { x: normal, y, size: y.size })
    normal[Symbol.dispose]()
    return y
  }
  const out = (...shape: number[]) => device.empty(shape, { dtype: precision as DType })
  const evenly = (parts: number, total: number) =>
    device.tensor(Int32Array.from({ length: parts + 1 }, (_, i) => Math.round((i * total) / parts)))

  const x = real(rows, d)
  const y = out(rows, d)
  const weight = real(experts, d, d)
  const expertOffsets = evenly(experts, rows)
  const segmentOffsets = evenly(experts * units, rows)
  const unitOffsets = evenly(units, rows)
  const gradient = device.zeros([experts, d, d])
  const normSquared = device.zeros([units], { dtype: 'float64' })
  const tileOf = device.empty([experts * units], { dtype: 'int32' })
  const factor = device.tensor(new Float32Array(units).fill(0.5))
  const perRow = () => device.empty([rows])
  const product = 2 * rows * d * d

  const multiply = (transposed: boolean, groups: number) => () =>
    device.run('matrixMultiply', {
      x,
      weight: groups === 1 ? weight.slice(0, d * d) : weight,
      ...(groups === 1 ? {} : { groupOffsets: expertOffsets }),
      y,
      ...{ rows, k: d, n: d, groups, groupStride: 1, transposed, accumulate: false, activation: 0 },
    })
  const heads = 16
  const headSize = d / heads
  const [q, k, v, dy] = [real(rows, d), real(rows, d), real(rows, d), real(rows, d)]
  const logSumExp = device.empty([rows, heads])
  const length = rows / units
  const attention = { offsets: unitOffsets, rows, units, heads, keyValueHeads: heads, headSize, span: 0 }
  const scale = headSize ** -0.5
  const [dq, dk, dv] = [out(rows, d), out(rows, d), out(rows, d)]
  const scores = 4 * rows * length * d // both products of the forward pass

  const parameters = 64 << 20
  const state = () => init.normal([parameters], 1).tensor
  const [master, sum, first, second] = [state(), state(), state(), device.zeros([parameters])]
  const key = device.tensor(Int32Array.from([1, 2, 3, 4, 5, 6, 7, 8]))
  const classes = 32768
  const logits = real(4096, classes)
  const targets = device.tensor(Int32Array.from({ length: 4096 }, (_, i) => i))

  return [
    { name: 'matrixMultiply, dense', flops: product, run: multiply(true, 1) },
    { name: 'matrixMultiply, 8 experts', flops: product, run: multiply(true, experts) },
    { name: 'matrixMultiply, input gradient', flops: product, run: multiply(false, experts) },
    {
      name: 'weightGradient, clipped',
      flops: product,
      run: () => device.run('weightGradient', { dy, x, segmentOffsets, factor, gradient, ...segments() }),
    },
    {
      name: 'segmentGradientNorms',
      flops: (2 * rows * (rows / (experts * units)) * 2 * d) / 2,
      run: () =>
        device.run('segmentGradientNorms', {
          ...{ dy, x, segmentOffsets, normSquared, tileOf, tiles: gradient, maxTiles: 0 },
          ...segments(),
        }),
    },
    {
      name: 'attention',
      flops: scores,
      run: () => device.run('attention', { q, k, v, y, logSumExp, ...attention, scale, causal: false }),
    },
    {
      name: 'attentionBackward',
      flops: 2.5 * scores,
      run: () =>
        device.run('attentionBackward', {
          ...{ dy, q, k, v, y, logSumExp, dq, dk, dv, scale, causal: false },
          ...attention,
        }),
    },
    {
      name: 'layerNorm',
      bytes: 2 * rows * d * width,
      run: () => device.run('layerNorm', { x, y, mean: perRow(), rstd: perRow(), rows, d, epsilon: 1e-5 }),
    },
    {
      name: 'crossEntropy, 32,768 classes',
      bytes: 4096 * classes * width,
      run: () =>
        device.run('crossEntropy', {
          ...{ logits, targets, loss: device.empty([4096]), logSumExp: device.empty([4096]) },
          ...{ rows: 4096, classes },
        }),
    },
    {
      name: 'add',
      bytes: 3 * rows * d * width,
      run: () => device.run('add', { a: x, b: dy, y, size: rows * d, alpha: 1, beta: 1 }),
    },
    {
      name: 'noisyAdam',
      bytes: 7 * 4 * parameters, // gradient read and cleared, weight and moments read and written
      run: () =>
        device.run('noisyAdam', {
          ...{ weight: master, gradient: sum, firstMoment: first, secondMoment: second, key, size: parameters },
          ...{ step: 1, stream: 1, noiseDeviation: 1, divisor: 256, learningRate: 1e-4, beta1: 0.9, beta2: 0.999 },
          ...{ correction1: 0.1, correction2: 0.001, epsilon: 1e-8, weightDecay: 0.01, noiseVariance: 0 },
          ...{ varianceFloor: 0, averageRate: 0, coupledDecay: false },
        }),
    },
  ]

  function segments() {
    return { rows, p: d, d, segments: experts * units, units }
  }
}

/** Seconds of one call: the best of five times twenty. */
async function secondsOf(device: Device, run: () => void): Promise<number> {
  let best = Number.POSITIVE_INFINITY
  for (let round = 0; round < 6; round++) {
    await device.synchronize()
    const start = performance.now()
    device.scope(() => {
      for (let call = 0; call < 20; call++) run()
    })
    await device.synchronize()
    if (round > 0) best = Math.min(best, (performance.now() - start) / 20_000)
  }
  return best
}

/** Milliseconds of a step of a model with 8 experts of width 1,024: the median. */
async function stepTime(device: Device, isPrivate: boolean): Promise<number> {
  const texts = 1024
  const model = new SwitchClassifier(new Initializer(device, 1), {
    ...referenceConfig,
    ...{ hiddenSize: 1024, numAttentionHeads: 16, intermediateSize: 4096 },
  })
  const [batch] = referenceBatches(1, 1, texts)
  const optimizer = adamW(model.parameters(), { learningRate: 1e-4 })
  const loss = model.loss.bind(model)
  const make = () => batch!.make(device)
  const settings = { key: seedKey('bench'), noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: texts }
  const made = isPrivate ? new PrivateOptimizer({ optimizer, ...settings }) : undefined
  const times: number[] = []
  for (let index = 0; index < 13; index++) {
    const start = performance.now()
    if (made) {
      await made.step(index, [make], loss)
    } else {
      await accumulateGradients(device, [make], loss, sumSink)
      device.scope(() => optimizer.update({ step: index, divisor: texts }))
    }
    await device.synchronize()
    if (index >= 3) times.push(performance.now() - start)
  }
  return times.sort((a, b) => a - b)[times.length >> 1]!
}

const percent = (share: number) => `${(100 * share).toFixed(0)} %`.padStart(6)

for (const precision of ['bfloat16', 'float32'] as const) {
  using device = openRealCuda(precision)
  console.log(`${device.info.name} (${device.info.instructionSet}), ${precision}; shares of an H200's reach`)
  for (const { name, flops, bytes, run } of casesOf(device, precision)) {
    const seconds = await secondsOf(device, run)
    const figure = flops
      ? `${(flops / seconds / 1e12).toFixed(1).padStart(7)} TFLOP/s ${percent(flops / seconds / reachable.flops)}`
      : `${(bytes! / seconds / 1e12).toFixed(2).padStart(7)} TB/s    ${percent(bytes! / seconds / reachable.bytes)}`
    console.log(`  ${name.padEnd(34)} ${(1e6 * seconds).toFixed(0).padStart(8)} us ${figure}`)
  }
}
for (const precision of ['bfloat16', 'float32'] as const) {
  using device = openRealCuda(precision)
  const plain = await stepTime(device, false)
  const priv = await stepTime(device, true)
  console.log(
    `a step in ${precision}: ${plain.toFixed(2)} ms, private ${priv.toFixed(2)} ms (${(priv / plain).toFixed(2)} x; target 1.10 x)`,
  )
}
