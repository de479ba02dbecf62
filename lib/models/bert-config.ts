import { z } from 'zod'
import type { Activation } from '../autograd/activation.js'
import type { JsonObject } from './hugging-face/checkpoint.js'
import {
  activationName,
  activationOf,
  labelSettings,
  labelsOf,
  parseConfig,
  positive,
  refuse,
  settingOf,
} from './hugging-face/config.js'

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
  /** In training, after the embeddings, attention, feed-forward and pooler. */
  readonly dropout: number
}

const schema = z.looseObject({
  model_type: z.literal('bert'),
  vocab_size: positive,
  hidden_size: positive,
  intermediate_size: positive,
  num_hidden_layers: positive,
  num_attention_heads: positive,
  max_position_embeddings: positive,
  type_vocab_size: positive.default(2),
  hidden_act: activationName.default('gelu'),
  layer_norm_eps: z.number().positive().default(1e-12),
  position_embedding_type: z.string().default('absolute'),
  is_decoder: z.boolean().default(false),
  problem_type: z.string().nullish(),
})

/** Reads a config.json. Without labels there or here the classes are LABEL_0 and LABEL_1, as in transformers. */
export function bertConfigFrom(
  source: JsonObject,
  { labels, dropout = 0 }: { labels?: readonly string[]; dropout?: number } = {},
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
    labels: labels ?? labelsOf(source) ?? ['LABEL_0', 'LABEL_1'],
    dropout,
  }
}

/** The settings of a config.json that say the same. */
export function bertSettings(config: BertConfig): JsonObject {
  const { vocabularySize, hiddenSize, intermediateSize, activation } = config
  return {
    model_type: 'bert',
    architectures: ['BertForSequenceClassification'],
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
  }
}
