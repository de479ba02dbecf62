import { Tape } from '../autograd/tape.js'
import type { LossFunction, UnitBatch } from '../nn/accumulate.js'
import type { Module } from '../nn/module.js'
import { ClippedSumSink } from './clipped-sum-sink.js'
import { type ClippingMode, clippingGroups } from './clipping.js'

/**
 * The L2 norm of each unit's gradient over all trainable parameters of `module`, in the batch's order.
 *
 * Un-noised: these numbers are private when the batch is. For public data, for choosing maxGradNorm, and for tests.
 */
export async function perExampleGradientNorms<B extends UnitBatch>(
  module: Module,
  batch: B,
  loss: LossFunction<B>,
): Promise<Float64Array> {
  const { device } = batch.layout
  const squared = device.scope(() => {
    const clipping = clippingGroups('flat', 1, module.nameParameters().parameters())
    const sink = new ClippedSumSink(device, clipping, batch.layout.units, device.zeros([1, 3], { dtype: 'float64' }))
    const tape = new Tape(device, sink)
    tape.backward(loss(batch, { tape, training: false }))
    return sink.squaredNorms().data()
  })
  return Float64Array.from(await squared, (value) => Math.sqrt(Number(value)))
}

export interface ClippedGradientSumOptions {
  maxGradNorm: number
  /** Default 'flat'. */
  clipping?: ClippingMode
}

/**
 * The sum over a batch of each unit's clipped gradient, by parameter name: what one private step would add noise to.
 *
 * Un-noised: private when the batch is. For public data and for tests.
 */
export async function clippedGradientSum<B extends UnitBatch>(
  module: Module,
  batch: B,
  loss: LossFunction<B>,
  { maxGradNorm, clipping: mode = 'flat' }: ClippedGradientSumOptions,
): Promise<Map<string, Float32Array>> {
  const { device } = batch.layout
  const parameters = module.nameParameters().trainableParameters()
  const clipping = clippingGroups(mode, maxGradNorm, parameters)
  const downloads = device.scope(() => {
    const statistics = device.zeros([clipping.groups.length, 3], { dtype: 'float64' })
    const sink = new ClippedSumSink(device, clipping, batch.layout.units, statistics)
    const tape = new Tape(device, sink)
    tape.backward(loss(batch, { tape, training: false }))
    sink.finish()
    return parameters.map(async (parameter) => {
      const data = parameter.gradient.data()
      parameter.gradient.fill(0)
      return [parameter.name, (await data) as Float32Array] as const
    })
  })
  return new Map(await Promise.all(downloads))
}
