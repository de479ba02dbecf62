import { activate } from '../autograd/activation.js'
import { add } from '../autograd/elementwise.js'
import { meanPerUnit, poolPerSequence } from '../autograd/embedding.js'
import { crossEntropy } from '../autograd/losses.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { Attention } from '../nn/attention.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import { FeedForward } from '../nn/feed-forward.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { LayerNorm } from '../nn/norms.js'
import { type BertConfig, bertConfigFrom, bertSettings } from './bert-config.js'
import { bertTensorMap } from './bert-tensors.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import { HuggingFaceModel, loadModel } from './hugging-face/hugging-face-model.js'
import type { TokenBatch } from './language-batch.js'
import type { TextBatch } from './text-batch.js'

/** One post-norm layer: LayerNorm after each residual sum. */
export class BertLayer extends Module {
  readonly attention: Attention
  readonly attentionNorm: LayerNorm
  readonly feedForward: FeedForward
  readonly feedForwardNorm: LayerNorm
  readonly #dropouts: readonly [Dropout, Dropout]

  constructor(init: Initializer, config: BertConfig, layer: number) {
    super()
    const { hiddenSize, intermediateSize, numAttentionHeads, activation, layerNormEpsilon, dropout } = config
    this.attention = new Attention(init, { hiddenSize, numAttentionHeads })
    this.attentionNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    this.feedForward = new FeedForward(init, { hiddenSize, intermediateSize, activation })
    this.feedForwardNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    this.#dropouts = [new Dropout(dropout, 2 * layer + 2), new Dropout(dropout, 2 * layer + 3)]
  }

  forward(x: Tensor, context: ForwardContext): Tensor {
    const { tape } = context
    const attended = this.#dropouts[0].forward(this.attention.forward(x, context), context)
    const middle = this.attentionNorm.forward(add(tape, x, attended), context)
    const fed = this.#dropouts[1].forward(this.feedForward.forward(middle, context), context)
    return this.feedForwardNorm.forward(add(tape, middle, fed), context)
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

  constructor(init: Initializer, config: BertConfig) {
    super()
    const { hiddenSize, vocabularySize, maxPositions, tokenTypes, numLayers, layerNormEpsilon, dropout } = config
    this.wordEmbedding = new Embedding(init, { vocabularySize, hiddenSize })
    this.positionEmbedding = new Embedding(init, { vocabularySize: maxPositions, hiddenSize })
    this.tokenTypeEmbedding = new Embedding(init, { vocabularySize: tokenTypes, hiddenSize })
    this.embeddingNorm = new LayerNorm(init, hiddenSize, layerNormEpsilon)
    this.layers = Array.from({ length: numLayers }, (_, layer) => new BertLayer(init, config, layer))
    this.#dropout = new Dropout(dropout, 0)
  }

  /** [rows, hiddenSize]. */
  forward({ layout, ids, positions, tokenTypes }: TokenBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const types = tokenTypes ?? tape.device.zeros([layout.rows], { dtype: 'int32', layout })
    const words = add(tape, this.wordEmbedding.forward(ids, context), this.tokenTypeEmbedding.forward(types, context))
    const sum = add(tape, words, this.positionEmbedding.forward(positions, context))
    let x = this.#dropout.forward(this.embeddingNorm.forward(sum, context), context)
    for (const layer of this.layers) x = layer.forward(x, context)
    return x
  }
}

export interface BertLoadOptions {
  /** Class names of a new head; default those of config.json. */
  readonly labels?: readonly string[]
  /** Seed of a new head's first weights. */
  readonly seed?: number | string
  /** Default 0; config.json's rate is that of its own training. */
  readonly dropout?: number
}

/** BERT with a head for classes over its first token: tanh pooler, then a linear layer. */
export class BertClassifier extends HuggingFaceModel {
  readonly encoder: BertEncoder
  readonly pooler: Linear
  readonly head: Linear
  readonly #source: JsonObject
  readonly #dropout: Dropout

  /** `headInit` makes what a checkpoint of the encoder alone lacks; `source` is a config.json whose other keys are kept. */
  constructor(
    init: Initializer,
    readonly config: BertConfig,
    { headInit = init, source = {} }: { headInit?: Initializer; source?: JsonObject } = {},
  ) {
    super()
    const { hiddenSize, labels, dropout } = config
    this.encoder = new BertEncoder(init, config)
    const deviation = 0.02
    this.pooler = new Linear(headInit, { inputSize: hiddenSize, outputSize: hiddenSize, deviation })
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
      (source, init, headInit) => new BertClassifier(init, bertConfigFrom(source, options), { headInit, source }),
      options.seed,
    )
    return model
  }

  /** Scores per sequence, [sequences, labels]. */
  logits(batch: TokenBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const x = this.encoder.forward(batch, context)
    const pooled = this.pooler.forward(firstRows(batch, x, context), context)
    const y = this.#dropout.forward(activate(tape, pooled, 'tanh'), context)
    return this.head.forward(y, context, { outputType: 'float32' })
  }

  /** Cross entropy, the mean over a unit's sequences, per unit. */
  loss(batch: TextBatch, context: ForwardContext): Tensor {
    return meanPerUnit(context.tape, crossEntropy(context.tape, this.logits(batch, context), batch.labels))
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
