import { add } from '../../lib/autograd/elementwise.js'
import { poolPerUnit, withLayout } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import type { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import type { UnitBatch } from '../../lib/nn/accumulate.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { MixtureOfExperts } from '../../lib/nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../../lib/nn/module.js'
import { LayerNorm } from '../../lib/nn/norms.js'
import { perturb } from './token-model.js'

/** An example made of numbers: any number of rows, each of `featureSize` values. */
export interface FeatureExample {
  readonly unit: number
  readonly rows: readonly (readonly number[])[]
  readonly label: number
}

export interface FeatureBatch extends UnitBatch {
  readonly x: Tensor
  readonly labels: Tensor
}

export const featureSize = 6

/** A model over plain numbers, so that an example may hold NaN, infinities and numbers near the largest float. */
export class FeatureModel extends Module {
  readonly input: Linear
  readonly norm: LayerNorm
  readonly mixture: MixtureOfExperts
  readonly head: Linear

  constructor(device: Device) {
    super()
    const init = new Initializer(device, 31)
    this.input = new Linear(init, { inputSize: featureSize, outputSize: 8 })
    this.norm = new LayerNorm(init, 8)
    this.mixture = new MixtureOfExperts(init, {
      hiddenSize: 8,
      intermediateSize: 10,
      numExperts: 3,
      expertsPerToken: 2,
    })
    this.head = new Linear(init, { inputSize: 8, outputSize: 2 })
    this.nameParameters()
    perturb(device, this, 0.1)
  }

  readonly loss = (batch: FeatureBatch, context: ForwardContext): Tensor => {
    const { tape } = context
    const hidden = this.input.forward(batch.x, context, { activation: 'gelu' })
    const { y, loss: routerLoss } = this.mixture.forward(this.norm.forward(hidden, context), context)
    const pooled = poolPerUnit(tape, add(tape, hidden, y))
    const loss = crossEntropy(tape, this.head.forward(pooled, context), batch.labels)
    return routerLoss ? add(tape, loss, routerLoss) : loss
  }
}

export function featureBatch(device: Device, examples: readonly FeatureExample[]): FeatureBatch {
  const offsets = new Int32Array(examples.length + 1)
  examples.forEach(({ rows }, index) => {
    offsets[index + 1] = offsets[index]! + rows.length
  })
  const layout = new UnitLayout(
    device,
    offsets,
    Int32Array.from(examples, ({ unit }) => unit),
  )
  const values = Float32Array.from(examples.flatMap(({ rows }) => rows.flat()))
  const labels = Int32Array.from(examples, ({ label }) => label)
  return {
    layout,
    x: withLayout(device.tensor(values, [layout.rows, featureSize]), layout),
    labels: device.tensor(labels, [examples.length], 'int32').withLayout(layout.perUnit),
  }
}
