import { layerNorm, rmsNorm } from '../autograd/normalisation.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { type ForwardContext, Module } from './module.js'

export class LayerNorm extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | undefined

  constructor(
    init: Initializer,
    hiddenSize: number,
    private readonly epsilon = 1e-5,
    bias = true,
  ) {
    super()
    this.weight = init.constant([hiddenSize], 1)
    this.bias = bias ? init.zeros([hiddenSize]) : undefined
  }

  forward(x: Tensor, { tape }: ForwardContext): Tensor {
    return layerNorm(tape, x, this.weight, this.bias, this.epsilon)
  }
}

export class RmsNorm extends Module {
  readonly weight: Parameter

  constructor(
    init: Initializer,
    hiddenSize: number,
    private readonly epsilon = 1e-6,
  ) {
    super()
    this.weight = init.constant([hiddenSize], 1)
  }

  /** Over each of `heads` equal parts of the last dimension. */
  forward(x: Tensor, { tape }: ForwardContext, heads = 1): Tensor {
    return rmsNorm(tape, x, this.weight, this.epsilon, heads)
  }
}
