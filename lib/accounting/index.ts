export type { Accountant, AccountantName, DeltaBounds, EpsilonBounds } from './accountant.js'
export { type AuditOptions, auditEpsilon, auditEpsilonOneRun, auditEpsilonOneRunFdp } from './audit.js'
export { type AuditCounts, auditCounts, clopperPearsonUpper } from './audit-counts.js'
export { type BudgetOptions, type LedgerSegment, ledgerEvent, PrivacyBudget } from './budget.js'
export { type GroupGuarantee, gaussianRho, groupDelta, groupPrivacy, zcdpDelta, zcdpEpsilon } from './conversions.js'
export { EpsilonCurve, type EpsilonCurveOptions } from './epsilon-curve.js'
export {
  composed,
  dpSgd,
  epsilonDelta,
  fixedSizeSampled,
  gaussian,
  mixtureOfGaussians,
  poissonSampled,
  selfComposed,
  truncatedPoissonSampled,
  zcdp,
} from './event-builders.js'
export {
  type ComposedEvent,
  type CountedEvent,
  type DpEvent,
  type EpsilonDeltaEvent,
  type FixedSizeSampledEvent,
  type GaussianEvent,
  type MixtureOfGaussiansEvent,
  NEIGHBORING_RELATIONS,
  type NeighboringRelation,
  type PoissonSampledEvent,
  type SelfComposedEvent,
  type TruncatedPoissonSampledEvent,
  type ZcdpEvent,
} from './events.js'
export { gaussianDelta, gaussianEpsilon, gaussianNoiseMultiplier } from './gaussian-mechanism.js'
export {
  adaptiveClippingNoiseMultiplier,
  effectiveNoiseMultiplier,
  jointReleases,
  type NoisyRelease,
  type Release,
} from './joint-releases.js'
export { DEFAULT_TOLERANCE, PldAccountant, type PldOptions } from './pld.js'
export { RdpAccountant, type RdpOptions } from './rdp.js'
export { createAccountant, type DpSgdParameters, type Solution, type SolveRequest, solve } from './solve.js'
export { type TradeOffPoint, tradeOffCurve } from './trade-off.js'
