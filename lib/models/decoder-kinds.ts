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

export const decoderKinds = ['mixtral', 'olmoe', 'qwen3_moe'] as const
export type DecoderKind = (typeof decoderKinds)[number]

/** What tells the decoders apart, beside the numbers of a configuration. */
export interface DecoderSwitches {
  /** RMS norm of queries and keys: of the whole projection, or of each head. */
  readonly queryKeyNorm: 'none' | 'whole' | 'per-head'
  /** Folder of a layer's mixture in a checkpoint. */
  readonly mixture: string
  /** Names of an expert's gate, up and down projections. */
  readonly projections: readonly [gate: string, up: string, down: string]
  readonly expertsSetting: 'num_local_experts' | 'num_experts'
  readonly intermediateSetting: 'intermediate_size' | 'moe_intermediate_size'
  readonly architecture: string
}

const usual = ['gate_proj', 'up_proj', 'down_proj'] as const

export const decoderSwitches: Readonly<Record<DecoderKind, DecoderSwitches>> = {
  mixtral: {
    queryKeyNorm: 'none',
    mixture: 'block_sparse_moe',
    projections: ['w1', 'w3', 'w2'],
    expertsSetting: 'num_local_experts',
    intermediateSetting: 'intermediate_size',
    architecture: 'MixtralForCausalLM',
  },
  olmoe: {
    queryKeyNorm: 'whole',
    mixture: 'mlp',
    projections: usual,
    expertsSetting: 'num_experts',
    intermediateSetting: 'intermediate_size',
    architecture: 'OlmoeForCausalLM',
  },
  qwen3_moe: {
    queryKeyNorm: 'per-head',
    mixture: 'mlp',
    projections: usual,
    expertsSetting: 'num_experts',
    intermediateSetting: 'moe_intermediate_size',
    architecture: 'Qwen3MoeForCausalLM',
  },
}

/** Shape of a decoder. */
export interface DecoderConfig {
  readonly kind: DecoderKind
  readonly vocabularySize: number
  readonly hiddenSize: number
  readonly numLayers: number
  readonly numAttentionHeads: number
  readonly numKeyValueHeads: number
  readonly headSize: number
  readonly attentionBias: boolean
  /** Bound on the magnitude of queries, keys and values. */
  readonly clipQkv: number | undefined
  readonly activation: Activation
  readonly normEpsilon: number
  /** Base of the rotary frequencies. */
  readonly ropeTheta: number
  /** Positions are divided by it. */
  readonly ropeFactor: number
  readonly numExperts: number
  readonly expertsPerToken: number
  /** Width of an expert. */
  readonly expertSize: number
  readonly normalizeGates: boolean
  readonly routerJitter: number
  /** Width of the layers that are no mixtures, and which they are. */
  readonly denseSize: number
  readonly denseLayers: readonly number[]
  readonly tiedHead: boolean
  /** Weight of each unit's balance loss, averaged over layers; 0: none. */
  readonly balanceLoss: number
}

const ropeSchema = z.looseObject({
  rope_theta: z.number().positive().optional(),
  rope_type: z.string().optional(),
  type: z.string().optional(),
  factor: z.number().positive().optional(),
})

const common = {
  vocab_size: positive,
  hidden_size: positive,
  num_hidden_layers: layerCount,
  num_attention_heads: positive,
  head_dim: positive.nullish(),
  hidden_act: activationName.default('silu'),
  attention_bias: z.boolean().default(false),
  rope_parameters: ropeSchema.nullish(),
  rope_scaling: ropeSchema.nullish(),
  rope_theta: z.number().positive().optional(),
  output_router_logits: z.boolean().default(false),
  router_aux_loss_coef: z.number().nonnegative().default(0.001),
  sliding_window: z.number().nullish(),
}

// The defaults are those of transformers: a config.json may leave out what equals them.
const schemas = {
  mixtral: z.looseObject({
    ...common,
    num_key_value_heads: positive.nullable().default(8),
    intermediate_size: positive,
    num_local_experts: positive.default(8),
    num_experts_per_tok: positive.default(2),
    rms_norm_eps: z.number().positive().default(1e-5),
    router_jitter_noise: z.number().min(0).lt(1).default(0),
    tie_word_embeddings: z.boolean().default(false),
  }),
  olmoe: z.looseObject({
    ...common,
    num_key_value_heads: positive.nullish(),
    intermediate_size: positive,
    num_experts: positive.default(64),
    num_experts_per_tok: positive.default(8),
    rms_norm_eps: z.number().positive().default(1e-5),
    norm_topk_prob: z.boolean().default(false),
    clip_qkv: z.number().positive().nullish(),
    tie_word_embeddings: z.boolean().default(false),
    router_aux_loss_coef: z.number().nonnegative().default(0.01),
  }),
  qwen3_moe: z.looseObject({
    ...common,
    num_key_value_heads: positive.nullable().default(4),
    intermediate_size: positive.default(6144),
    moe_intermediate_size: positive.default(768),
    num_experts: positive.default(128),
    num_experts_per_tok: positive.default(8),
    rms_norm_eps: z.number().positive().default(1e-6),
    norm_topk_prob: z.boolean().default(false),
    decoder_sparse_step: positive.default(1),
    mlp_only_layers: z.array(z.int().nonnegative()).nullable().default([]),
    use_sliding_window: z.boolean().default(false),
    tie_word_embeddings: z.boolean().default(false),
  }),
}

type Parsed = z.infer<(typeof schemas)['mixtral']> &
  z.infer<(typeof schemas)['olmoe']> &
  z.infer<(typeof schemas)['qwen3_moe']>

/** Reads a config.json of one of the kinds. */
export function decoderConfigFrom(source: JsonObject, balanceLoss?: number): DecoderConfig {
  const { model_type: kind } = parseConfig(z.looseObject({ model_type: z.enum(decoderKinds) }), source)
  const config = parseConfig(schemas[kind] as z.ZodType<Partial<Parsed>>, source) as Parsed
  const { theta, factor } = rope(config, kind === 'mixtral' ? 1e6 : 10000)
  const windowed = kind === 'qwen3_moe' ? config.use_sliding_window : kind === 'mixtral'
  const window = config.sliding_window ?? undefined
  refuse(windowed && window !== undefined, 'sliding_window', 'attention within a window is not offered, expected null')
  const { hidden_size: hiddenSize, num_attention_heads: numAttentionHeads, num_hidden_layers: numLayers } = config
  const { router_aux_loss_coef: coefficient, num_experts_per_tok: expertsPerToken } = config
  const numKeyValueHeads = config.num_key_value_heads ?? numAttentionHeads
  const headSize = (kind === 'olmoe' ? undefined : config.head_dim) ?? hiddenSize / numAttentionHeads
  refuse(!Number.isInteger(headSize / 2), 'head_dim', `expected an even head size, got ${headSize}`)
  refuse(
    numAttentionHeads % numKeyValueHeads !== 0,
    'num_key_value_heads',
    `expected a divisor of ${numAttentionHeads}`,
  )
  return {
    kind,
    vocabularySize: config.vocab_size,
    hiddenSize,
    numLayers,
    numAttentionHeads,
    numKeyValueHeads,
    headSize,
    attentionBias: kind !== 'mixtral' && config.attention_bias,
    clipQkv: config.clip_qkv ?? undefined,
    activation: activationOf(config.hidden_act),
    normEpsilon: config.rms_norm_eps,
    ropeTheta: theta,
    ropeFactor: factor,
    numExperts: config[decoderSwitches[kind].expertsSetting],
    expertsPerToken,
    expertSize: config[decoderSwitches[kind].intermediateSetting],
    normalizeGates: kind === 'mixtral' || config.norm_topk_prob,
    routerJitter: config.router_jitter_noise ?? 0,
    denseSize: config.intermediate_size,
    denseLayers: denseLayers(config, numLayers),
    tiedHead: config.tie_word_embeddings,
    balanceLoss: balanceLoss ?? (config.output_router_logits ? coefficient * expertsPerToken : 0),
  }
}

/** The settings of a config.json that say the same. */
export function decoderSettings(config: DecoderConfig): JsonObject {
  const { kind, numLayers } = config
  const { expertsSetting, intermediateSetting, architecture } = decoderSwitches[kind]
  const ropeSettings = config.ropeFactor === 1 ? null : { rope_type: 'linear', factor: config.ropeFactor }
  const own: Record<DecoderKind, JsonObject> = {
    mixtral: { router_jitter_noise: config.routerJitter, sliding_window: null },
    olmoe: { norm_topk_prob: config.normalizeGates, clip_qkv: config.clipQkv ?? null },
    qwen3_moe: {
      norm_topk_prob: config.normalizeGates,
      intermediate_size: config.denseSize,
      decoder_sparse_step: 1,
      mlp_only_layers: config.denseLayers,
      use_sliding_window: false,
    },
  }
  return {
    model_type: kind,
    architectures: [architecture],
    vocab_size: config.vocabularySize,
    hidden_size: config.hiddenSize,
    num_hidden_layers: numLayers,
    num_attention_heads: config.numAttentionHeads,
    num_key_value_heads: config.numKeyValueHeads,
    ...(kind === 'olmoe' ? {} : { head_dim: config.headSize }),
    ...(kind === 'mixtral' ? {} : { attention_bias: config.attentionBias }),
    hidden_act: settingOf(config.activation),
    rms_norm_eps: config.normEpsilon,
    rope_theta: config.ropeTheta,
    rope_scaling: ropeSettings,
    [expertsSetting]: config.numExperts,
    num_experts_per_tok: config.expertsPerToken,
    tie_word_embeddings: config.tiedHead,
    ...own[kind],
    [intermediateSetting]: config.expertSize,
  }
}

/** Layers with a plain feed-forward part. */
function denseLayers(config: Parsed, numLayers: number): number[] {
  const { decoder_sparse_step: step = 1, mlp_only_layers: only } = config
  const layers = Array.from({ length: numLayers }, (_, layer) => layer)
  return layers.filter((layer) => only?.includes(layer) || (layer + 1) % step !== 0)
}

/** Base and position scale, from what transformers 5 and earlier versions write. */
function rope(config: Parsed, fallback: number): { theta: number; factor: number } {
  const settings = config.rope_parameters ?? config.rope_scaling ?? {}
  const type = settings.rope_type ?? settings.type ?? 'default'
  refuse(type !== 'default' && type !== 'linear', 'rope_type', `'${type}' is not offered, expected default or linear`)
  const theta = settings.rope_theta ?? config.rope_theta ?? fallback
  return { theta, factor: type === 'linear' ? (settings.factor ?? 1) : 1 }
}
