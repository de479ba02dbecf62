import { add } from '../autograd/elementwise.js'
import { meanPerUnit, poolPerSequence } from '../autograd/embedding.js'
import { crossEntropy } from '../autograd/losses.js'
import type { Tensor } from '../engine/tensor.js'
import { Embedding } from '../nn/embedding.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { LinearExperts } from '../nn/linear-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import type { TextBatch } from './text-batch.js'

/** A sparse mixture of linear experts over frozen random word vectors. */
export interface MixtureClassifierConfig {
  vocabularySize: number
  numLabels: number
  hiddenSize: number
  numExperts: number
  /** Default 1. */
  expertsPerToken?: number
  /** Divide the gates of the chosen experts by their sum. Default false: with one expert the router would not learn. */
  normalizeGates?: boolean
  /**
   * Learning rate of the router as a fraction of the experts'; 0 freezes it. Default 0.1: noise at the experts' rate would
   * undo the routing.
   */
  routerLearningRate?: number
  /** Standard deviation of the first router weights; larger is more decided. Default 12: one expert takes most of a word. */
  routerDeviation?: number
  /** Scale of the bias: below 1 it takes less of each example's gradient norm. Default 0.3. */
  biasScale?: number
}

/**
 * Each token's frozen random vector is routed to a few of the experts, linear maps to class scores; a text's scores are the
 * weighted sum over its tokens. The word vectors are public random structure, so that the noise of private training falls
 * on the experts and the router only, and the mixture is what gives the model its capacity.
 */
export class MixtureClassifier extends Module {
  readonly embedding: Embedding
  readonly experts: LinearExperts
  readonly bias: Linear
  readonly config: Required<MixtureClassifierConfig>

  constructor(init: Initializer, config: MixtureClassifierConfig) {
    super()
    this.config = {
      expertsPerToken: 1,
      normalizeGates: false,
      routerLearningRate: 0.1,
      routerDeviation: 12,
      biasScale: 0.3,
      ...config,
    }
    const { vocabularySize, hiddenSize, numExperts, expertsPerToken, numLabels, routerLearningRate } = this.config
    const { routerDeviation, normalizeGates } = this.config
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize, deviation: 1 / Math.sqrt(hiddenSize) })
    this.experts = new LinearExperts(init, {
      inputSize: hiddenSize,
      outputSize: numLabels,
      numExperts,
      expertsPerToken,
      normalizeGates,
      routerDeviation,
    })
    this.bias = new Linear(init, { inputSize: 1, outputSize: numLabels, bias: false, deviation: 0 })
    this.embedding.freeze()
    // A single gate divided by itself is 1: such a router has no gradient.
    if ((expertsPerToken === 1 && normalizeGates) || routerLearningRate === 0) this.experts.router.freeze()
    this.experts.router.weight.learningRateScale = routerLearningRate
    this.nameParameters()
  }

  /** Scores per sequence, [sequences, numLabels]. */
  logits(batch: TextBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const { y } = this.experts.forward(this.embedding.forward(batch.ids, context), context)
    const scores = poolPerSequence(tape, y, batch.weights)
    const constant = tape.device
      .empty([batch.layout.sequenceCount, 1], { layout: batch.layout.perSequence })
      .fill(this.config.biasScale)
    return add(tape, scores, this.bias.forward(constant, context))
  }

  /** Cross entropy per unit: the mean over its sequences. */
  loss(batch: TextBatch, context: ForwardContext): Tensor {
    return meanPerUnit(context.tape, crossEntropy(context.tape, this.logits(batch, context), batch.labels))
  }
}
