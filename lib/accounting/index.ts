export type { Accountant, AccountantName, DeltaBounds, EpsilonBounds } from './accountant.js'
export { EpsilonCurve, type EpsilonCurveOptions } from './epsilon-curve.js'
export {
  type ComposedEvent,
  type CountedEvent,
  composed,
  type DpEvent,
  dpSgd,
  type GaussianEvent,
  gaussian,
  NEIGHBORING_RELATIONS,
  type NeighboringRelation,
  type PoissonSampledEvent,
  poissonSampled,
  type SelfComposedEvent,
  selfComposed,
} from './events.js'
export { PldAccountant, type PldOptions } from './pld.js'
export { RdpAccountant, type RdpOptions } from './rdp.js'
export { createAccountant, type DpSgdParameters, type Solution, type SolveRequest, solve } from './solve.js'
