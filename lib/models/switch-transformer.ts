import { add, scale } from '../autograd/elementwise.js'
import { poolPerSequence, poolPerUnit } from '../autograd/embedding.js'
import { linear } from '../autograd/linear.js'
import { vocabularyLoss } from '../autograd/vocabulary-loss.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { Embedding } from '../nn/embedding.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { addLosses } from '../nn/mixture-of-experts.js'
import type { ForwardContext } from '../nn/module.js'
import { classificationLoss } from './classification-loss.js'
import type { KeyValueStore } from './decoder.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import { labelSettings, labelsOrTwo } from './hugging-face/config.js'
import { HuggingFaceModel, loadModel } from './hugging-face/hugging-face-model.js'
import type { Seq2SeqBatch, TokenBatch } from './language-batch.js'
import {
  type SwitchLoadOptions,
  type SwitchTransformerConfig,
  switchConfigFrom,
  switchSettings,
} from './switch-config.js'
import { SwitchStack } from './switch-stack.js'
import { switchClassifierTensorMap, switchTensorMap } from './switch-tensors.js'
import type { TextBatch } from './text-batch.js'

/** Rows of the encoder, and the routers' losses on the way. */
export interface Encoded {
  readonly y: Tensor
  readonly losses: readonly (Tensor | undefined)[]
}

/** Switch Transformer (arXiv 2101.03961): a T5 encoder-decoder whose sparse layers send each token to one expert. */
export class SwitchTransformer extends HuggingFaceModel {
  readonly embedding: Embedding
  readonly encoder: SwitchStack
  readonly decoder: SwitchStack
  /** Undefined where the embedding table is the head as well. */
  readonly head: Linear | undefined
  readonly #source: JsonObject

  /** `source` is a config.json whose other keys are kept. */
  constructor(
    init: Initializer,
    readonly config: SwitchTransformerConfig,
    { source = {} }: { source?: JsonObject } = {},
  ) {
    super()
    const { vocabularySize, hiddenSize, tiedHead } = config
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize, deviation: 1 })
    this.encoder = new SwitchStack(init, config, 'encoder')
    this.decoder = new SwitchStack(init, config, 'decoder')
    this.head = tiedHead
      ? undefined
      : new Linear(init, { inputSize: hiddenSize, outputSize: vocabularySize, bias: false })
    this.#source = source
    this.nameParameters()
  }

  /** Reads a folder in the Hugging Face layout. */
  static async fromPretrained(
    device: Device,
    folder: string,
    options: SwitchLoadOptions = {},
  ): Promise<SwitchTransformer> {
    const { model } = await loadModel(
      device,
      folder,
      (source, init) => new SwitchTransformer(init, switchConfigFrom(source, options), { source }),
    )
    return model
  }

  encode({ ids }: TokenBatch, context: ForwardContext): Encoded {
    return this.encoder.forward(this.embedding.forward(ids, context), context)
  }

  /** Vectors of the decoder's rows, which attend to the encoder's rows `encoded` of their own sequence. */
  decode({ ids }: TokenBatch, encoded: Tensor, context: ForwardContext, cache?: KeyValueStore): Encoded {
    return this.decoder.forward(this.embedding.forward(ids, context), context, { encoded, cache })
  }

  /** Scores of every token for rows of `decode`, [rows, vocabularySize]. */
  scores(y: Tensor, context: ForwardContext): Tensor {
    const options = { operation: 'head', outputType: 'float32' } as const
    if (this.head) return this.head.forward(y, context, options)
    return linear(context.tape, this.#scaled(y, context), this.embedding.weight, undefined, options)
  }

  /** Vectors of the decoder's rows, and the routers' loss per unit. */
  forward(batch: Seq2SeqBatch, context: ForwardContext): { y: Tensor; routerLoss: Tensor | undefined } {
    const encoded = this.encode(batch, context)
    const { y, losses } = this.decode(batch.decoder, encoded.y, context)
    return { y, routerLoss: addLosses(context, [...encoded.losses, ...losses]) }
  }

  /** Scores of every next token of the decoder's rows, [rows, vocabularySize]. */
  logits(batch: Seq2SeqBatch, context: ForwardContext): Tensor {
    return this.scores(this.forward(batch, context).y, context)
  }

  /** Mean cross entropy of a unit's targets plus its router losses, per unit. */
  loss(batch: Seq2SeqBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const { y, routerLoss } = this.forward(batch, context)
    const terms = this.head?.terms(y, context) ?? [{ x: this.#scaled(y, context), weight: this.embedding.weight }]
    const rows = vocabularyLoss(tape, terms, batch.decoder.targets)
    const loss = poolPerUnit(tape, rows, batch.decoder.targetWeights)
    return routerLoss ? add(tape, loss, routerLoss) : loss
  }

  #scaled(y: Tensor, { tape }: ForwardContext): Tensor {
    return scale(tape, y, this.config.hiddenSize ** -0.5)
  }

  override configJson(): JsonObject {
    const architectures = ['SwitchTransformersForConditionalGeneration']
    return { ...this.#source, ...switchSettings(this.config), architectures }
  }

  override tensorMap() {
    return switchTensorMap(this)
  }
}

export interface SwitchClassifierLoadOptions extends SwitchLoadOptions {
  /** Class names of a new head; default those of config.json. */
  readonly labels?: readonly string[]
  /** Seed of a new head's first weights. */
  readonly seed?: number | string
}

/** The encoder of a Switch Transformer, the mean of each sequence's rows, and a linear head. */
export class SwitchEncoderClassifier extends HuggingFaceModel {
  readonly embedding: Embedding
  readonly encoder: SwitchStack
  readonly head: Linear
  readonly #source: JsonObject

  /** `headInit` makes what a checkpoint of the encoder alone lacks. */
  constructor(
    init: Initializer,
    readonly config: SwitchTransformerConfig,
    readonly labels: readonly string[],
    { headInit = init, source = {} }: { headInit?: Initializer; source?: JsonObject } = {},
  ) {
    super()
    const { vocabularySize, hiddenSize } = config
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize, deviation: 1 })
    this.encoder = new SwitchStack(init, config, 'encoder')
    this.head = new Linear(headInit, { inputSize: hiddenSize, outputSize: labels.length })
    this.#source = source
    this.nameParameters()
  }

  /** Reads the encoder of a folder in the Hugging Face layout, and the head where this library saved one. */
  static async fromPretrained(
    device: Device,
    folder: string,
    options: SwitchClassifierLoadOptions = {},
  ): Promise<SwitchEncoderClassifier> {
    const { model } = await loadModel(
      device,
      folder,
      (source, init, headInit) => {
        const labels = options.labels ?? labelsOrTwo(source)
        return new SwitchEncoderClassifier(init, switchConfigFrom(source, options), labels, { headInit, source })
      },
      options.seed,
    )
    return model
  }

  /** Scores per sequence, and the routers' loss per unit. */
  forward({ ids }: TokenBatch, context: ForwardContext): { logits: Tensor; routerLoss: Tensor | undefined } {
    const { y, losses } = this.encoder.forward(this.embedding.forward(ids, context), context)
    const pooled = poolPerSequence(context.tape, y)
    const logits = this.head.forward(pooled, context, { outputType: 'float32' })
    return { logits, routerLoss: addLosses(context, losses) }
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
    const architectures = ['SwitchTransformersEncoderModel']
    return { ...this.#source, ...switchSettings(this.config), ...labelSettings(this.labels), architectures }
  }

  override tensorMap() {
    return switchClassifierTensorMap(this)
  }
}
