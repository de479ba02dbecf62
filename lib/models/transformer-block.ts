import { add } from '../autograd/elementwise.js'
import type { Tensor } from '../engine/tensor.js'
import { Attention, type AttentionConfig } from '../nn/attention.js'
import { Dropout } from '../nn/dropout.js'
import { FeedForward, type FeedForwardConfig } from '../nn/feed-forward.js'
import type { Initializer } from '../nn/initializer.js'
import { MixtureOfExperts, type MixtureOfExpertsConfig } from '../nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norms.js'

export interface TransformerBlockConfig {
  attention: AttentionConfig
  /** A dense feed-forward layer, or a mixture of experts in its place. */
  feedForward: FeedForwardConfig | MixtureOfExpertsConfig
  /** Default 0. */
  dropout?: number
}

/** Pre-norm transformer block: x + attention(norm x), then x + feedForward(norm x). */
export class TransformerBlock extends Module {
  readonly attentionNorm: LayerNorm
  readonly attention: Attention
  readonly feedForwardNorm: LayerNorm
  readonly feedForward: FeedForward | MixtureOfExperts
  readonly #dropouts: readonly [Dropout, Dropout]

  constructor(init: Initializer, config: TransformerBlockConfig, layer: number) {
    super()
    const { hiddenSize } = config.attention
    this.attentionNorm = new LayerNorm(init, hiddenSize)
    this.attention = new Attention(init, config.attention)
    this.feedForwardNorm = new LayerNorm(init, hiddenSize)
    this.feedForward =
      'numExperts' in config.feedForward
        ? new MixtureOfExperts(init, config.feedForward, layer)
        : new FeedForward(init, config.feedForward)
    const rate = config.dropout ?? 0
    this.#dropouts = [new Dropout(rate, 2 * layer), new Dropout(rate, 2 * layer + 1)]
  }

  forward(x: Tensor, context: ForwardContext): { y: Tensor; loss: Tensor | undefined } {
    const { tape } = context
    const attended = this.attention.forward(this.attentionNorm.forward(x, context), context)
    const middle = add(tape, x, this.#dropouts[0].forward(attended, context))
    const normed = this.feedForwardNorm.forward(middle, context)
    const fed = this.feedForward.forward(normed, context)
    const { y, loss } = 'routing' in fed ? fed : { y: fed, loss: undefined }
    return { y: add(tape, middle, this.#dropouts[1].forward(y, context)), loss }
  }
}
