import { activate } from '../autograd/activation.js'
import { add } from '../autograd/elementwise.js'
import { poolPerSequence } from '../autograd/embedding.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { Attention } from '../nn/attention.js'
import { runLayer } from '../nn/checkpointed-layer.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import { FeedForward } from '../nn/feed-forward.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { addLosses, MixtureOfExperts } from '../nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norms.js'
import {
  type BertConfig,
  type BertMixture,
  type BertMixtureTraining,
  type BertPooling,
  bertConfigFrom,
  bertSettings,
} from './bert-config.js'
import { bertTensorMap } from './bert-tensors.js'
import { classificationLoss } from './classification-loss.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import { HuggingFaceModel, loadModel } from './hugging-face/hugging-face-model.js'
import type { TokenBatch } from './language-batch.js'
import type { TextBatch } from './text-batch.js'

/** One post-norm layer: LayerNorm after each residual sum. */
export class BertLayer extends Module {
  readonly attention: Attention
  readonly attentionNorm: LayerNorm
  readonly feedForward: FeedForward | MixtureOfExperts
  readonly feedForwardNorm: LayerNorm
  readonly #dropouts: readonly [Dropout, Dropout]

  constructor(init: Initializer, config: BertConfig, layer: number, training: BertMixtureTraining) {
    super()
    const { hiddenSize, intermediateSize, numAttentionHeads, activation, layerNormEpsilon, dropout, mixture } = config
    this.attention = new Attention(init, { hiddenSize, numAttentionHeads })
    this.attentionNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    const shape = { hiddenSize, intermediateSize, activation }
    this.feedForward = mixture?.layers.includes(layer)
      ? new MixtureOfExperts(init, { ...shape, ...mixtureSettings(mixture, training) }, layer)
      : new FeedForward(init, shape)
    if (this.feedForward instanceof MixtureOfExperts && training.trainRouter === false) {
      this.feedForward.router.freeze()
    }
    this.feedForwardNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    this.#dropouts = [new Dropout(dropout, 2 * layer + 2), new Dropout(dropout, 2 * layer + 3)]
  }

  forward(x: Tensor, context: ForwardContext): { y: Tensor; loss: Tensor | undefined } {
    const { tape } = context
    const attended = this.#dropouts[0].forward(this.attention.forward(x, context), context)
    const middle = this.attentionNorm.forward(add(tape, x, attended), context)
    const fed = this.feedForward.forward(middle, context)
    const { y, loss } = 'routing' in fed ? fed : { y: fed, loss: undefined }
    const sum = add(tape, middle, this.#dropouts[1].forward(y, context))
    return { y: this.feedForwardNorm.forward(sum, context), loss }
  }
}

function mixtureSettings({ numExperts, expertsPerToken, layers }: BertMixture, training: BertMixtureTraining) {
  const { balanceLoss = 0.01, releaseLoad = false } = training
  return {
    numExperts,
    expertsPerToken,
    normalizeGates: true,
    straightThroughGates: true,
    balanceLoss: balanceLoss / layers.length,
    releaseLoad,
  }
}

/** The encoder of BERT (arXiv 1810.04805) and of models in its layout (MiniLM): token ids to a vector per token. */
export class BertEncoder extends Module {
  readonly wordEmbedding: Embedding
  readonly positionEmbedding: Embedding
  readonly tokenTypeEmbedding: Embedding
  readonly embeddingNorm: LayerNorm
  readonly layers: readonly BertLayer[]
  readonly #dropout: Dropout

  constructor(init: Initializer, config: BertConfig, training: BertMixtureTraining = {}) {
    super()
    const { hiddenSize, vocabularySize, maxPositions, tokenTypes, numLayers, layerNormEpsilon, dropout } = config
    this.wordEmbedding = new Embedding(init, { vocabularySize, hiddenSize })
    this.positionEmbedding = new Embedding(init, { vocabularySize: maxPositions, hiddenSize })
    this.tokenTypeEmbedding = new Embedding(init, { vocabularySize: tokenTypes, hiddenSize })
    this.embeddingNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    this.layers = Array.from({ length: numLayers }, (_, layer) => new BertLayer(init, config, layer, training))
    this.#dropout = new Dropout(dropout, 0)
  }

  /** [rows, hiddenSize], and the routers' loss per unit. */
  forward(
    { layout, ids, positions, tokenTypes }: TokenBatch,
    context: ForwardContext,
  ): { y: Tensor; routerLoss: Tensor | undefined } {
    const { tape } = context
    const types = tokenTypes ?? tape.device.zeros([layout.rows], { dtype: 'int32', layout })
    const words = add(tape, this.wordEmbedding.forward(ids, context), this.tokenTypeEmbedding.forward(types, context))
    const sum = add(tape, words, this.positionEmbedding.forward(positions, context))
    let x = this.#dropout.forward(this.embeddingNorm.forward(sum, context), context)
    const losses: (Tensor | undefined)[] = []
    for (const layer of this.layers) {
      const read = x
      const { y, loss } = runLayer(context, layer, [x], (part) => layer.forward(read, part))
      x = y
      losses.push(loss)
    }
    return { y: x, routerLoss: addLosses(context, losses) }
  }
}

export interface BertLoadOptions extends BertMixtureTraining {
  /** Class names of a new head; default those of config.json. */
  readonly labels?: readonly string[]
  /** Seed of a new head's first weights. */
  readonly seed?: number | string
  /** Default that of config.json, 'cls' where it names none. */
  readonly pooling?: BertPooling
  /** Default 0; config.json's rate is that of its own training. */
  readonly dropout?: number
}

interface BertParts {
  readonly headInit?: Initializer
  readonly source?: JsonObject
  readonly training?: BertMixtureTraining
}

/** BERT with a head for classes: a linear layer over the first token's tanh pooler, or over the mean of all tokens. */
export class BertClassifier extends HuggingFaceModel {
  readonly encoder: BertEncoder
  /** Undefined where the head reads the mean. */
  readonly pooler: Linear | undefined
  readonly head: Linear
  readonly #source: JsonObject
  readonly #dropout: Dropout

  /** `headInit` makes what a checkpoint of the encoder alone lacks; `source` is a config.json whose other keys are kept. */
  constructor(
    init: Initializer,
    readonly config: BertConfig,
    { headInit = init, source = {}, training }: BertParts = {},
  ) {
    super()
    const { hiddenSize, labels, pooling = 'cls', dropout } = config
    this.encoder = new BertEncoder(init, config, training)
    const deviation = 0.02
    this.pooler =
      pooling === 'cls' ? new Linear(headInit, { inputSize: hiddenSize, outputSize: hiddenSize, deviation }) : undefined
    this.head = new Linear(headInit, { inputSize: hiddenSize, outputSize: labels.length, deviation })
    this.#dropout = new Dropout(dropout, 1)
    this.#source = source
    this.nameParameters()
  }

  /** Reads a folder in the Hugging Face layout: BERT with or without a classification head. */
  static async fromPretrained(device: Device, folder: string, options: BertLoadOptions = {}): Promise<BertClassifier> {
    const { model } = await loadModel(
      device,
      folder,
      (source, init, headInit) =>
        new BertClassifier(init, bertConfigFrom(source, options), { headInit, source, training: options }),
      options.seed,
    )
    return model
  }

  /** Class names in the order of the scores. */
  get labels(): readonly string[] {
    return this.config.labels
  }

  /** Scores per sequence, and the routers' loss per unit. */
  forward(batch: TokenBatch, context: ForwardContext): { logits: Tensor; routerLoss: Tensor | undefined } {
    const { y: x, routerLoss } = this.encoder.forward(batch, context)
    const y = this.#dropout.forward(this.#pool(batch, x, context), context)
    return { logits: this.head.forward(y, context, { outputType: 'float32' }), routerLoss }
  }

  #pool(batch: TokenBatch, x: Tensor, context: ForwardContext): Tensor {
    const { tape } = context
    if (!this.pooler) return poolPerSequence(tape, x)
    return activate(tape, this.pooler.forward(firstRows(batch, x, context), context), 'tanh')
  }

  /** Scores per sequence, [sequences, labels]. */
  logits(batch: TokenBatch, context: ForwardContext): Tensor {
    return this.forward(batch, context).logits
  }

  /** Cross entropy (the mean over a unit's sequences) plus router losses, per unit. */
  loss(batch: TextBatch, context: ForwardContext): Tensor {
    return classificationLoss(context, batch, this.forward(batch, context))
  }

  override configJson(): JsonObject {
    return { ...this.#source, ...bertSettings(this.config) }
  }

  override tensorMap() {
    return bertTensorMap(this)
  }
}

/** The first row of each sequence, [sequences, d]. */
function firstRows({ layout }: TokenBatch, x: Tensor, { tape }: ForwardContext): Tensor {
  const weights = new Float32Array(layout.rows)
  for (const row of layout.sequenceBounds) if (row < weights.length) weights[row] = 1
  return poolPerSequence(tape, x, tape.device.tensor(weights, [layout.rows]).withLayout(layout))
}
