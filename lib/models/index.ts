export { type AdaptedModel, type AdaptedModelOptions, openAdapted } from './adapted-model.js'
export { BertClassifier, BertEncoder, BertLayer, type BertLoadOptions } from './bert.js'
export type { BertConfig } from './bert-config.js'
export { type ConvertOptions, type ConvertResult, convertModel } from './convert.js'
export { Decoder, DecoderAttention, DecoderLayer, type DecoderLoadOptions, type KeyValueStore } from './decoder.js'
export { type DecoderConfig, type DecoderKind, decoderKinds } from './decoder-kinds.js'
export * from './generation/index.js'
export { type AdapterBase, saveAdapters } from './hugging-face/adapters.js'
export { modelFingerprint } from './hugging-face/fingerprint.js'
export { HuggingFaceModel, type SaveOptions } from './hugging-face/hugging-face-model.js'
export type { WeightOptions, WeightType } from './hugging-face/save-weights.js'
export { type FusedExperts, TensorMap, type TensorPlace } from './hugging-face/tensor-map.js'
export {
  type CausalBatch,
  causalBatch,
  type Seq2SeqBatch,
  seq2seqBatch,
  type Targets,
  type TokenBatch,
  tokenBatch,
} from './language-batch.js'
export { type MergeOptions, type MergeResult, mergeModel } from './merge.js'
export { MixtureClassifier, type MixtureClassifierConfig } from './mixture-classifier.js'
export {
  modelFromPretrained,
  type PretrainedOptions,
  type PretrainedTask,
  type PretrainedTasks,
} from './model-from-pretrained.js'
export { openLanguageModel } from './open-language-model.js'
export { type OpenModelOptions, openModel } from './open-model.js'
export { fromPretrained, type PretrainedClassifier, savePretrained } from './pretrained.js'
export { SwitchClassifier, type SwitchClassifierConfig } from './switch-classifier.js'
export type { SwitchLoadOptions, SwitchTransformerConfig } from './switch-config.js'
export { SwitchAttention, SwitchLayer, SwitchStack } from './switch-stack.js'
export {
  type Encoded,
  type SwitchClassifierLoadOptions,
  SwitchEncoderClassifier,
  SwitchTransformer,
} from './switch-transformer.js'
export { type TextBatch, textBatch } from './text-batch.js'
export { type ClassifierConfig, createClassifier, type TextClassifier } from './text-classifier.js'
export { type UpcycleOptions, upcycle } from './upcycle.js'
