export { type Activation, activate, gatedActivate } from './activation.js'
export { type AttentionOptions, attention, type RelativeBias } from './attention.js'
export { type CheckpointBody, checkpoint } from './checkpoint.js'
export { add, clamp, dropout, jitter, multiply, type StepRandom, scale } from './elementwise.js'
export { embedding, meanPerUnit, poolPerUnit, withLayout } from './embedding.js'
export { type Layout, RoutedLayout, type Segments, UnitLayout } from './layout.js'
export { type LinearOptions, linear } from './linear.js'
export { crossEntropy, softmax } from './losses.js'
export { type ExpertParameters, mixture } from './mixture.js'
export { layerNorm, rmsNorm } from './normalisation.js'
export { Parameter } from './parameter.js'
export { meanRows, sumRows } from './reductions.js'
export { rotate } from './rotary.js'
export { combine, type RouterLossOptions, type Routing, type RoutingOptions, route, routerLoss } from './routing.js'
export {
  type BiasSite,
  type EmbeddingSite,
  type GradientSink,
  type GradientSite,
  type LinearSite,
  type PerUnitSite,
  SumSink,
} from './sinks.js'
export { Tape, type TapeOptions } from './tape.js'
export { type ScoreTerm, vocabularyLoss } from './vocabulary-loss.js'
