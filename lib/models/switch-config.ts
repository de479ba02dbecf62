import { z } from 'zod'
import type { Activation } from '../autograd/activation.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import {
  activationName,
  activationOf,
  layerCount,
  parseConfig,
  positive,
  refuse,
  settingOf,
} from './hugging-face/config.js'

/** Shape of a Switch Transformer. */
export interface SwitchTransformerConfig {
  readonly vocabularySize: number
  readonly hiddenSize: number
  readonly headSize: number
  readonly numAttentionHeads: number
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numDecoderLayers: number
  /** Every how many layers one is a mixture: layer 1, 1 + step, ...; 1: all. */
  readonly sparseStep: number
  readonly decoderSparseStep: number
  readonly numExperts: number
  /** Rows of one sequence that one expert takes at most. */
  readonly capacityPerSequence: number
  readonly routerBias: boolean
  readonly routerJitter: number
  readonly activation: Activation
  readonly normEpsilon: number
  readonly relativeBuckets: number
  readonly relativeMaxDistance: number
  readonly tiedHead: boolean
  /** Weight of each unit's balance and z loss, averaged over the mixtures of a stack. */
  readonly balanceLoss: number
  readonly zLoss: number
  readonly dropout: number
  /** What the decoder reads first. */
  readonly decoderStartToken: number
}

export interface SwitchLoadOptions {
  /** Default: router_aux_loss_coef of config.json. */
  readonly balanceLoss?: number
  /** Default: router_z_loss_coef of config.json. */
  readonly zLoss?: number
  /** Default 0; config.json's rate is that of its own training. */
  readonly dropout?: number
  /** Rows of one sequence that one expert takes at most, 0: all. Default: expert_capacity of config.json. */
  readonly capacityPerSequence?: number
}

// The defaults are those of transformers: a config.json may leave out what equals them.
const schema = z.looseObject({
  model_type: z.literal('switch_transformers'),
  vocab_size: positive.default(32128),
  d_model: positive.default(768),
  d_kv: positive.default(64),
  d_ff: positive.default(2048),
  expert_capacity: positive.default(64),
  num_layers: layerCount.default(12),
  num_decoder_layers: layerCount.nullish(),
  num_sparse_encoder_layers: z.int().nonnegative().default(3),
  num_sparse_decoder_layers: z.int().nonnegative().default(3),
  encoder_sparse_step: z.int().nonnegative().optional(),
  decoder_sparse_step: z.int().nonnegative().optional(),
  num_heads: positive.default(12),
  num_experts: positive.default(8),
  router_bias: z.boolean().default(false),
  router_jitter_noise: z.number().min(0).lt(1).default(0.01),
  relative_attention_num_buckets: z.int().min(4).default(32),
  relative_attention_max_distance: positive.default(128),
  layer_norm_epsilon: z.number().positive().default(1e-6),
  router_z_loss_coef: z.number().nonnegative().default(0.001),
  router_aux_loss_coef: z.number().nonnegative().default(0.001),
  dense_act_fn: activationName.default('relu'),
  is_gated_act: z.boolean().default(false),
  tie_word_embeddings: z.boolean().default(true),
  pad_token_id: z.int().nonnegative().default(0),
  decoder_start_token_id: z.int().nonnegative().nullish(),
})

/** Reads a config.json. */
export function switchConfigFrom(source: JsonObject, options: SwitchLoadOptions = {}): SwitchTransformerConfig {
  const config = parseConfig(schema, source)
  refuse(config.is_gated_act, 'is_gated_act', 'gated feed-forward layers are not offered, expected false')
  const numLayers = config.num_layers
  const numDecoderLayers = config.num_decoder_layers ?? numLayers
  const buckets = config.relative_attention_num_buckets
  const distance = config.relative_attention_max_distance
  refuse(
    distance <= buckets / 2,
    'relative_attention_max_distance',
    `expected more than ${buckets / 2}, got ${distance}`,
  )
  return {
    vocabularySize: config.vocab_size,
    hiddenSize: config.d_model,
    headSize: config.d_kv,
    numAttentionHeads: config.num_heads,
    intermediateSize: config.d_ff,
    numLayers,
    numDecoderLayers,
    sparseStep: config.encoder_sparse_step ?? stepOf(numLayers, config.num_sparse_encoder_layers),
    decoderSparseStep: config.decoder_sparse_step ?? stepOf(numDecoderLayers, config.num_sparse_decoder_layers),
    numExperts: config.num_experts,
    capacityPerSequence: options.capacityPerSequence ?? config.expert_capacity,
    routerBias: config.router_bias,
    routerJitter: config.router_jitter_noise,
    activation: activationOf(config.dense_act_fn),
    normEpsilon: config.layer_norm_epsilon,
    relativeBuckets: buckets,
    relativeMaxDistance: distance,
    tiedHead: config.tie_word_embeddings,
    balanceLoss: options.balanceLoss ?? config.router_aux_loss_coef,
    zLoss: options.zLoss ?? config.router_z_loss_coef,
    dropout: options.dropout ?? 0,
    decoderStartToken: config.decoder_start_token_id ?? config.pad_token_id,
  }
}

/** The settings of a config.json that say the same. */
export function switchSettings(config: SwitchTransformerConfig): JsonObject {
  const { numLayers, numDecoderLayers, sparseStep, decoderSparseStep } = config
  return {
    model_type: 'switch_transformers',
    vocab_size: config.vocabularySize,
    d_model: config.hiddenSize,
    d_kv: config.headSize,
    d_ff: config.intermediateSize,
    // In a checkpoint a capacity of none is one that no sequence reaches.
    expert_capacity: config.capacityPerSequence === 0 ? 2 ** 30 : config.capacityPerSequence,
    num_layers: numLayers,
    num_decoder_layers: numDecoderLayers,
    num_sparse_encoder_layers: sparseLayers(numLayers, sparseStep).length,
    num_sparse_decoder_layers: sparseLayers(numDecoderLayers, decoderSparseStep).length,
    encoder_sparse_step: sparseStep,
    decoder_sparse_step: decoderSparseStep,
    num_heads: config.numAttentionHeads,
    num_experts: config.numExperts,
    router_bias: config.routerBias,
    router_jitter_noise: config.routerJitter,
    relative_attention_num_buckets: config.relativeBuckets,
    relative_attention_max_distance: config.relativeMaxDistance,
    layer_norm_epsilon: config.normEpsilon,
    dense_act_fn: settingOf(config.activation),
    is_gated_act: false,
    tie_word_embeddings: config.tiedHead,
    decoder_start_token_id: config.decoderStartToken,
  }
}

/** Which layers of a stack are mixtures. */
export function sparseLayers(layers: number, step: number): number[] {
  const all = Array.from({ length: layers }, (_, layer) => layer)
  return step === 0 ? [] : all.filter((layer) => step === 1 || layer % step === 1)
}

/** As transformers has it, also for no sparse layers, where the step is the number of layers. */
function stepOf(layers: number, sparse: number): number {
  return sparse === 0 ? layers : Math.floor(layers / sparse)
}
