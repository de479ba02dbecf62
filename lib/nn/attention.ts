import { attention } from '../autograd/attention.js'
import type { Tensor } from '../engine/tensor.js'
import { OutOfRangeError } from '../errors.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import { type ForwardContext, Module } from './module.js'

export interface AttentionConfig {
  hiddenSize: number
  numAttentionHeads: number
  /** Default numAttentionHeads. */
  numKeyValueHeads?: number
  /** Default false: every row of a unit sees every other. */
  causal?: boolean
  /** Default true. */
  bias?: boolean
}

/** Multi-head attention within each unit, with query, key, value and output projections. */
export class Attention extends Module {
  readonly query: Linear
  readonly key: Linear
  readonly value: Linear
  readonly output: Linear
  readonly #config: AttentionConfig

  constructor(init: Initializer, config: AttentionConfig) {
    super()
    const { hiddenSize, numAttentionHeads, numKeyValueHeads = numAttentionHeads, bias = true } = config
    if (hiddenSize % numAttentionHeads !== 0 || numAttentionHeads % numKeyValueHeads !== 0) {
      throw new OutOfRangeError('numAttentionHeads', `a divisor of hiddenSize ${hiddenSize}`, numAttentionHeads)
    }
    const keyValueSize = (hiddenSize / numAttentionHeads) * numKeyValueHeads
    this.query = new Linear(init, { inputSize: hiddenSize, outputSize: hiddenSize, bias })
    this.key = new Linear(init, { inputSize: hiddenSize, outputSize: keyValueSize, bias })
    this.value = new Linear(init, { inputSize: hiddenSize, outputSize: keyValueSize, bias })
    this.output = new Linear(init, { inputSize: hiddenSize, outputSize: hiddenSize, bias })
    this.#config = config
  }

  forward(x: Tensor, context: ForwardContext): Tensor {
    const { numAttentionHeads: heads, numKeyValueHeads: keyValueHeads, causal } = this.#config
    const q = this.query.forward(x, context)
    const k = this.key.forward(x, context)
    const v = this.value.forward(x, context)
    return this.output.forward(attention(context.tape, q, k, v, { heads, keyValueHeads, causal }), context)
  }
}
