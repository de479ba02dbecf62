import { attention, type RelativeBias } from '../autograd/attention.js'
import { add } from '../autograd/elementwise.js'
import type { Tensor } from '../engine/tensor.js'
import { runLayer } from '../nn/checkpointed-layer.js'
import { Dropout } from '../nn/dropout.js'
import { Embedding } from '../nn/embedding.js'
import { FeedForward } from '../nn/feed-forward.js'
import type { Initializer } from '../nn/initializer.js'
import { Linear } from '../nn/linear.js'
import { MixtureOfExperts } from '../nn/mixture-of-experts.js'
import { type ForwardContext, Module } from '../nn/module.js'
import { RmsNorm } from '../nn/norms.js'
import type { KeyValueStore } from './decoder.js'
import { relativeBuckets } from './relative-buckets.js'
import { type SwitchTransformerConfig, sparseLayers } from './switch-config.js'

/** What a layer attends to. */
interface Attended {
  /** Rows that keys and values are made from; default: the queries' own. */
  readonly source?: Tensor
  readonly causal: boolean
  readonly bias?: RelativeBias
  readonly cache?: { readonly store: KeyValueStore; readonly layer: number } | undefined
}

/** Attention as in T5: no biases, and scores that are not divided by the root of the head size. */
export class SwitchAttention extends Module {
  readonly query: Linear
  readonly key: Linear
  readonly value: Linear
  readonly output: Linear
  readonly #heads: number

  constructor(init: Initializer, config: SwitchTransformerConfig) {
    super()
    const { hiddenSize, headSize, numAttentionHeads } = config
    const inner = headSize * numAttentionHeads
    const projection = { inputSize: hiddenSize, outputSize: inner, bias: false }
    this.query = new Linear(init, { ...projection, deviation: (hiddenSize * headSize) ** -0.5 })
    this.key = new Linear(init, projection)
    this.value = new Linear(init, projection)
    this.output = new Linear(init, { inputSize: inner, outputSize: hiddenSize, bias: false })
    this.#heads = numAttentionHeads
  }

  forward(x: Tensor, { source = x, causal, bias, cache }: Attended, context: ForwardContext): Tensor {
    const q = this.query.forward(x, context)
    const k = this.key.forward(source, context)
    const v = this.value.forward(source, context)
    const { key, value } = cache?.store.extend(cache.layer, k, v) ?? { key: k, value: v }
    const y = attention(context.tape, q, key, value, { heads: this.#heads, scale: 1, causal, ...(bias && { bias }) })
    return this.output.forward(y, context)
  }
}

/** Which of a model's two stacks. */
export type StackRole = 'encoder' | 'decoder'

/** A pre-norm layer: attention, in a decoder attention to the encoder's rows, then a feed-forward part or a mixture. */
export class SwitchLayer extends Module {
  readonly attentionNorm: RmsNorm
  readonly attention: SwitchAttention
  readonly crossNorm: RmsNorm | undefined
  readonly crossAttention: SwitchAttention | undefined
  readonly feedForwardNorm: RmsNorm
  readonly feedForward: FeedForward | MixtureOfExperts
  readonly #dropouts: readonly Dropout[]

  /** `mixtures`: how many layers of the stack are. */
  constructor(
    init: Initializer,
    config: SwitchTransformerConfig,
    { role, layer, sparse, mixtures }: { role: StackRole; layer: number; sparse: boolean; mixtures: number },
  ) {
    super()
    const { hiddenSize, intermediateSize, activation, normEpsilon, dropout, numLayers } = config
    this.attentionNorm = new RmsNorm(init, hiddenSize, normEpsilon)
    this.attention = new SwitchAttention(init, config)
    this.crossNorm = role === 'decoder' ? new RmsNorm(init, hiddenSize, normEpsilon) : undefined
    this.crossAttention = role === 'decoder' ? new SwitchAttention(init, config) : undefined
    this.feedForwardNorm = new RmsNorm(init, hiddenSize, normEpsilon)
    const dense = { hiddenSize, intermediateSize, activation, bias: false }
    // Layers of both stacks are told apart by one number.
    const number = role === 'decoder' ? numLayers + layer : layer
    this.feedForward = sparse
      ? new MixtureOfExperts(
          init,
          {
            ...dense,
            numExperts: config.numExperts,
            capacityPerSequence: config.capacityPerSequence,
            routerBias: config.routerBias,
            routerJitter: config.routerJitter,
            balanceLoss: config.balanceLoss / mixtures,
            zLoss: config.zLoss / mixtures,
          },
          number,
        )
      : new FeedForward(init, dense)
    this.#dropouts = [0, 1, 2].map((part) => new Dropout(dropout, 4 + 3 * number + part))
  }

  forward(
    x: Tensor,
    attended: Attended,
    encoded: Tensor | undefined,
    context: ForwardContext,
  ): { y: Tensor; loss: Tensor | undefined } {
    const { tape } = context
    const sum = (to: Tensor, part: number, y: Tensor) => add(tape, to, this.#dropouts[part]!.forward(y, context))
    let middle = sum(x, 0, this.attention.forward(this.attentionNorm.forward(x, context), attended, context))
    if (this.crossAttention && this.crossNorm && encoded) {
      const normed = this.crossNorm.forward(middle, context)
      middle = sum(middle, 1, this.crossAttention.forward(normed, { source: encoded, causal: false }, context))
    }
    const fed = this.feedForward.forward(this.feedForwardNorm.forward(middle, context), context)
    const { y, loss } = 'routing' in fed ? fed : { y: fed, loss: undefined }
    return { y: sum(middle, 2, y), loss }
  }
}

/** The layers of the encoder or the decoder, with one bias by distance for all of them. */
export class SwitchStack extends Module {
  readonly relativeBias: Embedding
  readonly layers: readonly SwitchLayer[]
  readonly norm: RmsNorm
  readonly #role: StackRole
  readonly #buckets: Int32Array
  readonly #dropouts: readonly [Dropout, Dropout]

  constructor(init: Initializer, config: SwitchTransformerConfig, role: StackRole) {
    super()
    const {
      hiddenSize,
      numAttentionHeads,
      normEpsilon,
      relativeBuckets: buckets,
      relativeMaxDistance,
      dropout,
    } = config
    const decodes = role === 'decoder'
    const layers = decodes ? config.numDecoderLayers : config.numLayers
    const sparse = sparseLayers(layers, decodes ? config.decoderSparseStep : config.sparseStep)
    this.relativeBias = new Embedding(init, { vocabularySize: buckets, hiddenSize: numAttentionHeads })
    this.layers = Array.from({ length: layers }, (_, layer) => {
      const place = { role, layer, sparse: sparse.includes(layer), mixtures: sparse.length }
      return new SwitchLayer(init, config, place)
    })
    this.norm = new RmsNorm(init, hiddenSize, normEpsilon)
    this.#role = role
    this.#buckets = relativeBuckets(buckets, relativeMaxDistance, !decodes)
    this.#dropouts = decodes
      ? [new Dropout(dropout, 2), new Dropout(dropout, 3)]
      : [new Dropout(dropout, 0), new Dropout(dropout, 1)]
  }

  /** x [rows, hiddenSize], embedded; a decoder also reads `encoded`. */
  forward(
    x: Tensor,
    context: ForwardContext,
    { encoded, cache }: { encoded?: Tensor; cache?: KeyValueStore | undefined } = {},
  ): { y: Tensor; losses: readonly (Tensor | undefined)[] } {
    const bias = { table: this.relativeBias.weight, buckets: this.#buckets }
    const causal = this.#role === 'decoder'
    const losses: (Tensor | undefined)[] = []
    let y = this.#dropouts[0].forward(x, context)
    for (const [layer, block] of this.layers.entries()) {
      const attended = { causal, bias, cache: cache && { store: cache, layer } }
      const read = y
      const run = (part: ForwardContext) => block.forward(read, attended, encoded, part)
      // A cache keeps what layers made.
      const result = cache ? run(context) : runLayer(context, block, encoded ? [y, encoded] : [y], run)
      y = result.y
      losses.push(result.loss)
    }
    return { y: this.#dropouts[1].forward(this.norm.forward(y, context), context), losses }
  }
}
