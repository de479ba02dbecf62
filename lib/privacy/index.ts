export { type Certificate, type NonPrivateStatement, readCertificate } from './certificate.js'
export { ClippedSumSink } from './clipped-sum-sink.js'
export { type Clipping, type ClippingMode, clippingGroups } from './clipping.js'
export { type ClippedGradientSumOptions, clippedGradientSum, perExampleGradientNorms } from './inspect.js'
export { fileKey, osKey, type RunKey, seedKey } from './keys.js'
export { Ledger, type LedgerSummary, readLedger } from './ledger.js'
export {
  type MakePrivateOptions,
  type MakePrivateWithEpsilonOptions,
  PrivacyEngine,
  type PrivacyEngineOptions,
  type PrivateTraining,
} from './privacy-engine.js'
export { PrivateOptimizer, type PrivateStepStatistics, type StepRecorder } from './private-optimizer.js'
export { type BatchSampler, PoissonSampler, ShuffleSampler } from './sampling.js'
