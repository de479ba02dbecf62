import { type Activation, gatedActivate } from '../autograd/activation.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import { type ForwardContext, Module } from './module.js'

export interface FeedForwardConfig {
  hiddenSize: number
  intermediateSize: number
  /** Default 'relu'. */
  activation?: Activation
  /** Multiply the activation by a second projection (SwiGLU with silu, arXiv 2002.05202). Default false. */
  gated?: boolean
  /** Default true; gated layers usually have none. */
  bias?: boolean
}

/** down activation(up x), or down (activation(gate x) * up x). */
export class FeedForward extends Module {
  readonly gate: Linear | undefined
  readonly up: Linear
  readonly down: Linear
  readonly #activation: Activation

  constructor(init: Initializer, config: FeedForwardConfig) {
    super()
    const { hiddenSize, intermediateSize, activation = 'relu', gated = false, bias = true } = config
    const wide = { inputSize: hiddenSize, outputSize: intermediateSize, bias }
    this.gate = gated ? new Linear(init, wide) : undefined
    this.up = new Linear(init, wide)
    this.down = new Linear(init, { inputSize: intermediateSize, outputSize: hiddenSize, bias })
    this.#activation = activation
  }

  forward(x: Tensor, context: ForwardContext): Tensor {
    const hidden = this.gate
      ? gatedActivate(context.tape, this.gate.forward(x, context), this.up.forward(x, context), this.#activation)
      : this.up.forward(x, context, { activation: this.#activation })
    return this.down.forward(hidden, context)
  }
}
