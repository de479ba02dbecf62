export { Attention, type AttentionConfig } from './attention.js'
export { Dropout } from './dropout.js'
export { Embedding, type EmbeddingConfig } from './embedding.js'
export { FeedForward, type FeedForwardConfig } from './feed-forward.js'
export { Initializer, UnfilledWeights } from './initializer.js'
export { Linear, type LinearConfig } from './linear.js'
export { LinearExperts, type LinearExpertsConfig } from './linear-experts.js'
export { LowRankAdapter, type LowRankConfig } from './low-rank-adapter.js'
export { addLosses, MixtureOfExperts, type MixtureOfExpertsConfig, type MixtureOutput } from './mixture-of-experts.js'
export { type ForwardContext, Module } from './module.js'
export { LayerNorm, RmsNorm } from './norms.js'
export { Telemetry } from './telemetry.js'
export {
  type AdapterTarget,
  adaptersOf,
  defaultAdapterTargets,
  mergeAdapters,
  setTrainable,
  type TrainableChoice,
  type TrainableOptions,
} from './trainable.js'
