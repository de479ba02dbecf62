import { add } from '../../lib/autograd/elementwise.js'
import { meanPerUnit, poolPerUnit } from '../../lib/autograd/embedding.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import type { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import type { TextBatch } from '../../lib/models/text-batch.js'
import { Attention } from '../../lib/nn/attention.js'
import { Dropout } from '../../lib/nn/dropout.js'
import { Embedding } from '../../lib/nn/embedding.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { addLosses, MixtureOfExperts, type MixtureOfExpertsConfig } from '../../lib/nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../../lib/nn/module.js'
import { LayerNorm, RmsNorm } from '../../lib/nn/norms.js'

export interface TokenModelConfig {
  vocabularySize?: number
  hiddenSize?: number
  numLabels?: number
  mixture?: Partial<MixtureOfExpertsConfig>
  norm?: 'layer' | 'rms'
  causal?: boolean
  /** Heads that share keys and values: 1 for grouped-query attention over two heads. */
  keyValueHeads?: number
  dropout?: number
  /** The embedding table is the output head, and the loss is that of every token. Default false: one class per text. */
  tied?: boolean
}

/** Embedding, one attention block, one mixture of experts, a head: every option of the layers in one small model. */
export class TokenModel extends Module {
  readonly embedding: Embedding
  readonly attentionNorm: LayerNorm | RmsNorm
  readonly attention: Attention
  readonly mixtureNorm: LayerNorm | RmsNorm
  readonly mixture: MixtureOfExperts
  readonly head: Linear | undefined
  readonly #dropout: Dropout

  constructor(device: Device, config: TokenModelConfig = {}) {
    super()
    const { vocabularySize = 19, hiddenSize = 12, numLabels = 3, norm = 'layer', tied = false } = config
    const init = new Initializer(device, 21)
    const makeNorm = () => (norm === 'rms' ? new RmsNorm(init, hiddenSize) : new LayerNorm(init, hiddenSize))
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize, deviation: 0.7 })
    this.attentionNorm = makeNorm()
    this.attention = new Attention(init, {
      hiddenSize,
      numAttentionHeads: 2,
      numKeyValueHeads: config.keyValueHeads,
      causal: config.causal,
    })
    this.mixtureNorm = makeNorm()
    this.mixture = new MixtureOfExperts(init, { hiddenSize, intermediateSize: 20, numExperts: 4, ...config.mixture })
    this.head = tied ? undefined : new Linear(init, { inputSize: hiddenSize, outputSize: numLabels })
    this.#dropout = new Dropout(config.dropout ?? 0, 1)
    this.nameParameters()
    perturb(device, this, 0.15)
  }

  /** The loss of each text, router losses included. */
  readonly loss = (batch: TextBatch, context: ForwardContext): Tensor => {
    const { tape } = context
    const embedded = this.#dropout.forward(this.embedding.forward(batch.ids, context), context)
    const attended = this.attention.forward(this.attentionNorm.forward(embedded, context), context)
    const middle = add(tape, embedded, attended)
    const { y, loss: routerLoss } = this.mixture.forward(this.mixtureNorm.forward(middle, context), context)
    const x = add(tape, middle, y)
    const task = this.head
      ? crossEntropy(tape, this.head.forward(poolPerUnit(tape, x), context), batch.labels)
      : meanPerUnit(tape, crossEntropy(tape, linear(tape, x, this.embedding.weight), batch.ids))
    return addLosses(context, [task, routerLoss])!
  }
}

/** Moves every parameter by normal noise, so that biases and norms are away from their first values. */
export function perturb(device: Device, module: Module, deviation: number): void {
  const init = new Initializer(device, 8)
  for (const parameter of module.parameters()) {
    const noise = init.normal(parameter.shape, deviation)
    const y = parameter.tensor
    device.run('add', { a: y, b: noise.tensor, y, size: parameter.size, alpha: 1, beta: 1 })
    noise[Symbol.dispose]()
  }
}
