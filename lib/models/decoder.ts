import { attention } from '../autograd/attention.js'
import { add, clamp } from '../autograd/elementwise.js'
import { poolPerUnit } from '../autograd/embedding.js'
import { linear } from '../autograd/linear.js'
import { rotate } from '../autograd/rotary.js'
import { vocabularyLoss } from '../autograd/vocabulary-loss.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { runLayer } from '../nn/checkpointed-layer.js'
import { Embedding } from '../nn/embedding.js'
import { FeedForward } from '../nn/feed-forward.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { addLosses, MixtureOfExperts } from '../nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { RmsNorm } from '../nn/norms.js'
import { type DecoderConfig, decoderConfigFrom, decoderSettings, decoderSwitches } from './decoder-kinds.js'
import { decoderTensorMap } from './decoder-tensors.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import { HuggingFaceModel, loadModel } from './hugging-face/hugging-face-model.js'
import type { CausalBatch, TokenBatch } from './language-batch.js'

/** Keys and values of a layer, to attend to: those of the rows at hand, or of a cache that ends with them. */
export interface KeyValueStore {
  /** Adds the rows' keys and values of a layer; returns all of the sequences so far (`UnitLayout.beside`). */
  extend(layer: number, key: Tensor, value: Tensor): { key: Tensor; value: Tensor }
}

/** Causal attention with rotary positions, grouped heads, and norms of queries and keys where the kind has them. */
export class DecoderAttention extends Module {
  readonly query: Linear
  readonly key: Linear
  readonly value: Linear
  readonly output: Linear
  readonly queryNorm: RmsNorm | undefined
  readonly keyNorm: RmsNorm | undefined
  readonly #config: DecoderConfig
  readonly #layer: number

  constructor(init: Initializer, config: DecoderConfig, layer: number) {
    super()
    const { hiddenSize: inputSize, headSize, numAttentionHeads, numKeyValueHeads, attentionBias: bias } = config
    const querySize = numAttentionHeads * headSize
    const keySize = numKeyValueHeads * headSize
    this.query = new Linear(init, { inputSize, outputSize: querySize, bias })
    this.key = new Linear(init, { inputSize, outputSize: keySize, bias })
    this.value = new Linear(init, { inputSize, outputSize: keySize, bias })
    this.output = new Linear(init, { inputSize: querySize, outputSize: inputSize, bias })
    const { queryKeyNorm } = decoderSwitches[config.kind]
    const norm = (size: number) => {
      if (queryKeyNorm === 'none') return undefined
      return new RmsNorm(init, queryKeyNorm === 'whole' ? size : headSize, config.normEpsilon)
    }
    this.queryNorm = norm(querySize)
    this.keyNorm = norm(keySize)
    this.#config = config
    this.#layer = layer
  }

  forward(x: Tensor, rows: DecoderRows, context: ForwardContext): Tensor {
    const { numAttentionHeads: heads, numKeyValueHeads: keyValueHeads } = this.#config
    const q = this.#turned(this.query.forward(x, context), this.queryNorm, heads, rows, context)
    const k = this.#turned(this.key.forward(x, context), this.keyNorm, keyValueHeads, rows, context)
    const v = this.#clipped(this.value.forward(x, context), context)
    const { key, value } = rows.cache?.extend(this.#layer, k, v) ?? { key: k, value: v }
    const y = attention(context.tape, q, key, value, { heads, keyValueHeads, causal: true })
    return this.output.forward(y, context)
  }

  #turned(x: Tensor, norm: RmsNorm | undefined, heads: number, rows: DecoderRows, context: ForwardContext): Tensor {
    const perHead = decoderSwitches[this.#config.kind].queryKeyNorm === 'per-head'
    const normed = norm ? norm.forward(x, context, perHead ? heads : 1) : x
    return rotate(context.tape, this.#clipped(normed, context), rows.positions, rows.inverseFrequency)
  }

  #clipped(x: Tensor, { tape }: ForwardContext): Tensor {
    const { clipQkv } = this.#config
    return clipQkv === undefined ? x : clamp(tape, x, -clipQkv, clipQkv)
  }
}

/** What all layers of a forward pass share. */
interface DecoderRows {
  readonly positions: Tensor
  readonly inverseFrequency: Tensor
  readonly cache: KeyValueStore | undefined
}

/** x + attention(norm x), then x + mixture(norm x), or a dense feed-forward part in the mixture's place. */
export class DecoderLayer extends Module {
  readonly attentionNorm: RmsNorm
  readonly attention: DecoderAttention
  readonly feedForwardNorm: RmsNorm
  readonly feedForward: FeedForward | MixtureOfExperts

  constructor(init: Initializer, config: DecoderConfig, layer: number) {
    super()
    const { hiddenSize, activation, normEpsilon, numLayers, denseLayers } = config
    this.attentionNorm = new RmsNorm(init, hiddenSize, normEpsilon)
    this.attention = new DecoderAttention(init, config, layer)
    this.feedForwardNorm = new RmsNorm(init, hiddenSize, normEpsilon)
    const gated = { hiddenSize, activation, gated: true, bias: false }
    this.feedForward = denseLayers.includes(layer)
      ? new FeedForward(init, { ...gated, intermediateSize: config.denseSize })
      : new MixtureOfExperts(
          init,
          {
            ...gated,
            intermediateSize: config.expertSize,
            numExperts: config.numExperts,
            expertsPerToken: config.expertsPerToken,
            normalizeGates: config.normalizeGates,
            routerJitter: config.routerJitter,
            balanceLoss: config.balanceLoss / Math.max(1, numLayers - denseLayers.length),
          },
          layer,
        )
  }

  forward(x: Tensor, rows: DecoderRows, context: ForwardContext): { y: Tensor; loss: Tensor | undefined } {
    const { tape } = context
    const attended = this.attention.forward(this.attentionNorm.forward(x, context), rows, context)
    const middle = add(tape, x, attended)
    const fed = this.feedForward.forward(this.feedForwardNorm.forward(middle, context), context)
    const { y, loss } = 'routing' in fed ? fed : { y: fed, loss: undefined }
    return { y: add(tape, middle, y), loss }
  }
}

export interface DecoderLoadOptions {
  /** Weight of each unit's balance loss; default as config.json: its coefficient where output_router_logits is set, else 0. */
  readonly balanceLoss?: number
}

/** A causal language model with mixtures of experts: Mixtral, OLMoE or Qwen3-MoE, by the switches of its configuration. */
export class Decoder extends HuggingFaceModel {
  readonly embedding: Embedding
  readonly layers: readonly DecoderLayer[]
  readonly norm: RmsNorm
  /** Undefined where the embedding table is the head as well. */
  readonly head: Linear | undefined
  readonly #source: JsonObject

  /** `source` is a config.json whose other keys are kept. */
  constructor(
    init: Initializer,
    readonly config: DecoderConfig,
    { source = {} }: { source?: JsonObject } = {},
  ) {
    super()
    const { vocabularySize, hiddenSize, numLayers, normEpsilon, tiedHead } = config
    this.embedding = new Embedding(init, { vocabularySize, hiddenSize })
    this.layers = Array.from({ length: numLayers }, (_, layer) => new DecoderLayer(init, config, layer))
    this.norm = new RmsNorm(init, hiddenSize, normEpsilon)
    this.head = tiedHead
      ? undefined
      : new Linear(init, { inputSize: hiddenSize, outputSize: vocabularySize, bias: false })
    this.#source = source
    this.nameParameters()
  }

  /** Reads a folder in the Hugging Face layout, with one tensor per expert or fused ones. */
  static async fromPretrained(device: Device, folder: string, options: DecoderLoadOptions = {}): Promise<Decoder> {
    const { model } = await loadModel(
      device,
      folder,
      (source, init) => new Decoder(init, decoderConfigFrom(source, options.balanceLoss), { source }),
    )
    return model
  }

  /** Vectors [rows, hiddenSize] after the last norm, and the routers' loss per unit. */
  forward(
    { ids, positions }: TokenBatch,
    context: ForwardContext,
    cache?: KeyValueStore,
  ): { y: Tensor; routerLoss: Tensor | undefined } {
    const losses: (Tensor | undefined)[] = []
    const rows = { positions, inverseFrequency: this.#inverseFrequency(context), cache }
    let x = this.embedding.forward(ids, context)
    for (const layer of this.layers) {
      const read = x
      const run = (part: ForwardContext) => layer.forward(read, rows, part)
      // A cache keeps what layers made.
      const { y, loss } = cache ? run(context) : runLayer(context, layer, [x], run)
      x = y
      losses.push(loss)
    }
    return { y: this.norm.forward(x, context), routerLoss: addLosses(context, losses) }
  }

  /** Scores of every token for rows of `forward`, [rows, vocabularySize]. */
  scores(y: Tensor, context: ForwardContext): Tensor {
    const options = { operation: 'head', outputType: 'float32' } as const
    if (this.head) return this.head.forward(y, context, options)
    return linear(context.tape, y, this.embedding.weight, undefined, options)
  }

  /** Scores of every next token, [rows, vocabularySize]. */
  logits(batch: TokenBatch, context: ForwardContext): Tensor {
    return this.scores(this.forward(batch, context).y, context)
  }

  /** Mean cross entropy of a unit's targets plus its router losses, per unit. */
  loss(batch: CausalBatch, context: ForwardContext): Tensor {
    const { tape } = context
    const { y, routerLoss } = this.forward(batch, context)
    const terms = this.head?.terms(y, context) ?? [{ x: y, weight: this.embedding.weight }]
    const rows = vocabularyLoss(tape, terms, batch.targets)
    const loss = poolPerUnit(tape, rows, batch.targetWeights)
    return routerLoss ? add(tape, loss, routerLoss) : loss
  }

  override configJson(): JsonObject {
    return { ...this.#source, ...decoderSettings(this.config) }
  }

  override tensorMap() {
    return decoderTensorMap(this)
  }

  #inverseFrequency({ tape }: ForwardContext): Tensor {
    const { headSize, ropeTheta, ropeFactor } = this.config
    const half = headSize / 2
    const values = Float32Array.from({ length: half }, (_, i) => ropeTheta ** (-i / half) / ropeFactor)
    return tape.device.tensor(values, [half])
  }
}
