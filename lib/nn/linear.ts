import { type LinearOptions, linear } from '../autograd/linear.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { type ForwardContext, Module } from './module.js'

export interface LinearConfig {
  inputSize: number
  outputSize: number
  /** Default true. */
  bias?: boolean
  /** Standard deviation of the first weights. Default 1 / sqrt(inputSize); 0 starts at zero. */
  deviation?: number
}

/** y = x W' + b, W [outputSize, inputSize], b [outputSize]. */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | undefined

  constructor(init: Initializer, { inputSize, outputSize, bias = true, deviation }: LinearConfig) {
    super()
    const scale = deviation ?? 1 / Math.sqrt(inputSize)
    this.weight = scale === 0 ? init.zeros([outputSize, inputSize]) : init.normal([outputSize, inputSize], scale)
    this.bias = bias ? init.zeros([outputSize]) : undefined
  }

  forward(x: Tensor, { tape }: ForwardContext, options?: LinearOptions): Tensor {
    return linear(tape, x, this.weight, this.bias, options)
  }
}
