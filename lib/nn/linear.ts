import { activate } from '../autograd/activation.js'
import { add, scale } from '../autograd/elementwise.js'
import { type LinearOptions, linear } from '../autograd/linear.js'
import type { Parameter } from '../autograd/parameter.js'
import type { ScoreTerm } from '../autograd/vocabulary-loss.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { LowRankAdapter, type LowRankConfig } from './low-rank-adapter.js'
import { type ForwardContext, Module } from './module.js'

export interface LinearConfig {
  inputSize: number
  outputSize: number
  /** Default true. */
  bias?: boolean
  /** Standard deviation of the first weights. Default 1 / sqrt(inputSize); 0 starts at zero. */
  deviation?: number
}

/** y = x W' + b, W [outputSize, inputSize], b [outputSize]; with an adapter W + scale B A in place of W. */
export class Linear extends Module {
  readonly weight: Parameter
  readonly bias: Parameter | undefined
  adapter: LowRankAdapter | undefined

  constructor(init: Initializer, { inputSize, outputSize, bias = true, deviation }: LinearConfig) {
    super()
    const spread = deviation ?? 1 / Math.sqrt(inputSize)
    this.weight = spread === 0 ? init.zeros([outputSize, inputSize]) : init.normal([outputSize, inputSize], spread)
    this.bias = bias ? init.zeros([outputSize]) : undefined
  }

  forward(x: Tensor, context: ForwardContext, options: LinearOptions = {}): Tensor {
    const { tape } = context
    if (!this.adapter) return linear(tape, x, this.weight, this.bias, options)
    const { activation = 'none', ...plain } = options
    const change = this.adapter.forward(x, context, options.outputType)
    const y = add(tape, linear(tape, x, this.weight, this.bias, plain), change, 1, this.adapter.scale)
    return activation === 'none' ? y : activate(tape, y, activation)
  }

  /** What the layer adds up, without a bias: one product, with an adapter two. */
  terms(x: Tensor, { tape }: ForwardContext): ScoreTerm[] {
    const own = { x, weight: this.weight }
    if (!this.adapter) return [own]
    return [own, { x: scale(tape, this.adapter.narrow(x, tape), this.adapter.scale), weight: this.adapter.b }]
  }

  /** Puts an adapter on the weight and freezes the weight. */
  adapt(init: Initializer, config: LowRankConfig): LowRankAdapter {
    this.mergeAdapter()
    this.weight.freeze()
    this.adapter = new LowRankAdapter(init, this.weight.shape, config)
    return this.adapter
  }

  /** Writes the adapter, if there is one, into the weight and removes it. The outputs stay the same, to rounding. */
  mergeAdapter(): void {
    this.adapter?.mergeInto(this.weight)
    this.adapter?.[Symbol.dispose]()
    this.adapter = undefined
  }
}
