export { type Certificate, type NonPrivateStatement, readCertificate } from './certificate.js'
export { ClippedSumSink } from './clipped-sum-sink.js'
export { type Clipping, type ClippingGroup, type ClippingMode, clippingGroups } from './clipping.js'
export { type ClippedGradientSumOptions, clippedGradientSum, perExampleGradientNorms } from './inspect.js'
export { fileKey, osKey, type RunKey, seedKey } from './keys.js'
export { Ledger, type LedgerPosition, type LedgerRun, type LedgerSummary, readLedger } from './ledger.js'
export type { StepMechanism } from './ledger-format.js'
export type { LedgerSegment, StepGroup } from './ledger-history.js'
export {
  type MakePrivateOptions,
  type MakePrivateWithEpsilonOptions,
  PrivacyEngine,
  type PrivacyEngineOptions,
  type PrivacyPlan,
  type PrivateTraining,
} from './privacy-engine.js'
export {
  PrivateOptimizer,
  type PrivateOptimizerOptions,
  type PrivateStepStatistics,
  type StepRecorder,
} from './private-optimizer.js'
export { type BatchSampler, PoissonSampler, ShuffleSampler } from './sampling.js'
