import type { BertConfig } from '../../lib/models/bert-config.js'

/** A dense BERT small enough to write out by hand. */
export const tinyBert: BertConfig = {
  vocabularySize: 19,
  hiddenSize: 12,
  intermediateSize: 20,
  numLayers: 2,
  numAttentionHeads: 3,
  maxPositions: 64,
  tokenTypes: 2,
  activation: 'gelu',
  layerNormEpsilon: 1e-12,
  labels: ['a', 'b', 'c'],
  dropout: 0,
}

/** One to train from its folder with a tokenizer of `vocabularySize` words. */
export function trainableBert(vocabularySize: number): BertConfig {
  const sizes = { hiddenSize: 16, intermediateSize: 24, numAttentionHeads: 2, maxPositions: 32 }
  return { ...tinyBert, vocabularySize, ...sizes, labels: ['LABEL_0', 'LABEL_1'] }
}
