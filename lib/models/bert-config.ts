import { z } from 'zod'
import type { Activation } from '../autograd/activation.js'
import { DpMoeError } from '../errors.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import {
  activationName,
  activationOf,
  labelSettings,
  labelsOrTwo,
  layerCount,
  parseConfig,
  positive,
  refuse,
  settingOf,
} from './hugging-face/config.js'

/** The mixtures of an upcycled encoder. Gates of the chosen experts sum to 1. */
export interface BertMixture {
  readonly numExperts: number
  readonly expertsPerToken: number
  /** Which layers, counted from 0. */
  readonly layers: readonly number[]
}

/** What the classification head reads: the first token through BERT's own pooler, or the mean over a text's tokens. */
export type BertPooling = 'cls' | 'mean'

/** How the mixtures are trained; it changes nothing that the model computes. */
export interface BertMixtureTraining {
  /** Weight of the balance loss over all mixtures. Default 0.01. */
  readonly balanceLoss?: number
  /** Balance against the load that is released with noise, in place of each text's own. Default false. */
  readonly releaseLoad?: boolean
  /** Default true. */
  readonly trainRouter?: boolean
}

/** Shape of a BERT-like encoder with a classification head. */
export interface BertConfig {
  readonly vocabularySize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numAttentionHeads: number
  readonly maxPositions: number
  /** Rows of the token type table. */
  readonly tokenTypes: number
  readonly activation: Activation
  readonly layerNormEpsilon: number
  readonly labels: readonly string[]
  /** Default 'cls'. */
  readonly pooling?: BertPooling
  /** Mixtures of experts in place of some feed-forward parts (an upcycled model); undefined: none. */
  readonly mixture?: BertMixture | undefined
  /** In training, after the embeddings, attention, feed-forward and pooler. */
  readonly dropout: number
}

const schema = z.looseObject({
  model_type: z.enum(['bert', 'bert_moe']),
  vocab_size: positive,
  hidden_size: positive,
  intermediate_size: positive,
  num_hidden_layers: layerCount,
  num_attention_heads: positive,
  max_position_embeddings: positive,
  type_vocab_size: positive.default(2),
  hidden_act: activationName.default('gelu'),
  layer_norm_eps: z.number().positive().default(1e-12),
  position_embedding_type: z.string().default('absolute'),
  is_decoder: z.boolean().default(false),
  problem_type: z.string().nullish(),
  classifier_pooling: z.enum(['cls', 'mean']).default('cls'),
  num_experts: positive.optional(),
  num_experts_per_tok: positive.default(1),
  moe_layers: z.array(z.int().nonnegative()).optional(),
})

/** Reads a config.json. Without labels there or here the classes are LABEL_0 and LABEL_1, as in transformers. */
export function bertConfigFrom(
  source: JsonObject,
  { labels, pooling, dropout = 0 }: { labels?: readonly string[]; pooling?: BertPooling; dropout?: number } = {},
): BertConfig {
  const config = parseConfig(schema, source)
  const positions = config.position_embedding_type
  refuse(positions !== 'absolute', 'position_embedding_type', `expected 'absolute', got '${positions}'`)
  refuse(config.is_decoder, 'is_decoder', 'expected false; BERT as a decoder is not offered')
  const problem = config.problem_type ?? 'single_label_classification'
  refuse(problem !== 'single_label_classification', 'problem_type', `'${problem}' is not offered`)
  return {
    vocabularySize: config.vocab_size,
    hiddenSize: config.hidden_size,
    intermediateSize: config.intermediate_size,
    numLayers: config.num_hidden_layers,
    numAttentionHeads: config.num_attention_heads,
    maxPositions: config.max_position_embeddings,
    tokenTypes: config.type_vocab_size,
    activation: activationOf(config.hidden_act),
    layerNormEpsilon: config.layer_norm_eps,
    labels: labels ?? labelsOrTwo(source),
    pooling: pooling ?? config.classifier_pooling,
    mixture: config.model_type === 'bert_moe' ? mixtureOf(config) : undefined,
    dropout,
  }
}

function mixtureOf(config: z.infer<typeof schema>): BertMixture {
  const { num_experts: numExperts, num_experts_per_tok: expertsPerToken, moe_layers: layers } = config
  if (numExperts === undefined || layers === undefined) {
    throw new DpMoeError('MODEL_FORMAT', 'num_experts, moe_layers: expected with model_type bert_moe, got none')
  }
  refuse(expertsPerToken > numExperts, 'num_experts_per_tok', `expected at most num_experts, ${numExperts}`)
  const last = config.num_hidden_layers - 1
  refuse(new Set(layers).size < layers.length, 'moe_layers', 'a layer is there twice')
  refuse(
    layers.some((layer) => layer > last),
    'moe_layers',
    `expected layers from 0 to ${last}`,
  )
  return { numExperts, expertsPerToken, layers }
}

/** The settings of a config.json that say the same. */
export function bertSettings(config: BertConfig): JsonObject {
  const { vocabularySize, hiddenSize, intermediateSize, activation, pooling = 'cls' } = config
  return {
    model_type: 'bert',
    // transformers has no head on a mean, so it is to take such a model for its encoder alone.
    architectures: [pooling === 'cls' ? 'BertForSequenceClassification' : 'BertModel'],
    vocab_size: vocabularySize,
    hidden_size: hiddenSize,
    intermediate_size: intermediateSize,
    num_hidden_layers: config.numLayers,
    num_attention_heads: config.numAttentionHeads,
    max_position_embeddings: config.maxPositions,
    type_vocab_size: config.tokenTypes,
    hidden_act: settingOf(activation),
    layer_norm_eps: config.layerNormEpsilon,
    ...labelSettings(config.labels),
    ...(pooling !== 'cls' && { classifier_pooling: pooling }),
    ...(config.mixture && mixtureSettings(config.mixture)),
  }
}

/** Another model_type: what knows BERT only would take such a model for one and fail on its tensors. */
function mixtureSettings({ numExperts, expertsPerToken, layers }: BertMixture): JsonObject {
  return {
    model_type: 'bert_moe',
    architectures: ['BertMoeForSequenceClassification'],
    num_experts: numExperts,
    num_experts_per_tok: expertsPerToken,
    moe_layers: layers,
  }
}
