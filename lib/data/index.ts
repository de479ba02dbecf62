export { type BagOptions, type BagWeighting, bagOf } from './bag.js'
export {
  collectDataset,
  Dataset,
  type DatasetArrays,
  type EncodedSequence,
  type EncodeOptions,
  encodeDataset,
  encodeUnit,
} from './dataset.js'
export { fnv1a, mixBits } from './hash.js'
export { type HuggingFaceOptions, HuggingFaceTokenizer } from './hugging-face-tokenizer.js'
export { IncrementalDecoder, type TokenDecoder } from './incremental-decoder.js'
export { type JsonRow, readJsonLines } from './json-lines.js'
export { encodeLabels, LabelSet, labelsFound, requireSeveralClasses, sortLabels } from './labels.js'
export {
  type EncodedUnit,
  type PackedBatch,
  packBatch,
  splitIntoMicroBatches,
  type UnitRange,
} from './packing.js'
export {
  type DataFormat,
  type Example,
  type LabelledExample,
  type ReadOptions,
  readExamples,
  streamExamples,
} from './readers.js'
export { type Split, splitByText } from './split.js'
export type { DataSource, TextSource } from './text-blocks.js'
export type { HuggingFaceConfig, Tokenizer, TokenizerConfig, WordHashConfig } from './tokenizer.js'
export { tokenizerFromJson } from './tokenizer-from-json.js'
export { groupByUser, type UserGroups } from './users.js'
export { type WordHashOptions, WordHashTokenizer } from './word-hash-tokenizer.js'
