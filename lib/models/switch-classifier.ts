import { add } from '../autograd/elementwise.js'
import { poolPerSequence } from '../autograd/embedding.js'
import type { Tensor } from '../engine/tensor.js'
import { runLayer } from '../nn/checkpointed-layer.js'
import { Embedding } from '../nn/embedding.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { addLosses } from '../nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norms.js'
import { classificationLoss } from './classification-loss.js'
import type { TextBatch } from './text-batch.js'
import { TransformerBlock } from './transformer-block.js'

/** An encoder with mixtures of experts in place of some feed-forward layers (Switch Transformer, arXiv 2101.03961). */
export interface SwitchClassifierConfig {
  vocabularySize: number
  numLabels: number
  hiddenSize: number
  numLayers: number
  numAttentionHeads: number
  intermediateSize: number
  numExperts: number
  /** Default 1. */
  expertsPerToken?: number
  /** Every how many layers one is a mixture, counted from the end of each group; 0: none. Default 2. */
  sparseEvery?: number
  /** Longest text in tokens: rows of the position table. */
  maxPositions: number
  /** Weight of the per-unit balance loss. Default 0.01. */
  balanceLoss?: number
  /** Balance against the load released with noise, in place of each text's own. Default false. */
  releaseLoad?: boolean
  /** Default 0. */
  dropout?: number
}

/** Token and position embeddings, pre-norm blocks, mean pooling over each text, a linear head. */
export class SwitchClassifier extends Module {
  readonly embedding: Embedding
  readonly position: Embedding
  readonly layers: readonly TransformerBlock[]
  readonly norm: LayerNorm
  readonly head: Linear

  constructor(
    init: Initializer,
    readonly config: SwitchClassifierConfig,
  ) {
    super()
    const { vocabularySize, hiddenSize, maxPositions, numLayers, numLabels, sparseEvery = 2 } = config
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize })
    this.position = new Embedding(init, { vocabularySize: maxPositions, hiddenSize })
    const attention = { hiddenSize, numAttentionHeads: config.numAttentionHeads }
    const dense = { hiddenSize, intermediateSize: config.intermediateSize }
    const sparse = {
      ...dense,
      numExperts: config.numExperts,
      expertsPerToken: config.expertsPerToken,
      balanceLoss: config.balanceLoss,
      releaseLoad: config.releaseLoad,
    }
    this.layers = Array.from({ length: numLayers }, (_, layer) => {
      const mixture = sparseEvery > 0 && layer % sparseEvery === sparseEvery - 1
      return new TransformerBlock(
        init,
        { attention, feedForward: mixture ? sparse : dense, dropout: config.dropout },
        layer,
      )
    })
    this.norm = new LayerNorm(init, hiddenSize)
    this.head = new Linear(init, { inputSize: hiddenSize, outputSize: numLabels })
    this.nameParameters()
  }

  /** Scores per sequence and the routers' loss per unit. */
  forward(batch: TextBatch, context: ForwardContext): { logits: Tensor; routerLoss: Tensor | undefined } {
    const { tape } = context
    const losses: (Tensor | undefined)[] = []
    let x = add(tape, this.embedding.forward(batch.ids, context), this.position.forward(batch.positions, context))
    for (const layer of this.layers) {
      const read = x
      const { y, loss } = runLayer(context, layer, [x], (part) => layer.forward(read, part))
      x = y
      losses.push(loss)
    }
    const pooled = poolPerSequence(tape, this.norm.forward(x, context))
    return {
      logits: this.head.forward(pooled, context, { outputType: 'float32' }),
      routerLoss: addLosses(context, losses),
    }
  }

  /** Scores per sequence, [sequences, numLabels]. */
  logits(batch: TextBatch, context: ForwardContext): Tensor {
    return this.forward(batch, context).logits
  }

  /** Cross entropy (the mean over a unit's sequences) plus router losses, per unit. */
  loss(batch: TextBatch, context: ForwardContext): Tensor {
    return classificationLoss(context, batch, this.forward(batch, context))
  }
}
