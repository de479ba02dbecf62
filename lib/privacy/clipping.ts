import type { Release } from '../accounting/index.js'
import { LoadEstimate, loadBound } from '../autograd/load-balance.js'
import type { Parameter } from '../autograd/parameter.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'

/**
 * How a unit's gradient is bounded.
 * - `flat`: one norm over all trained parameters, factor min(1, C / norm) (Abadi et al., arXiv 1607.00133).
 * - `per-layer`: one norm per layer, each bounded by C / sqrt(layers), so that the whole is bounded by C.
 * - `automatic`: AUTO-S, factor C / (norm + 0.01) (Bu et al., arXiv 2206.07136): every unit counts about the same.
 */
export type ClippingMode = 'flat' | 'per-layer' | 'automatic'

const clippingModes: readonly ClippingMode[] = ['flat', 'per-layer', 'automatic']

export interface ClippingGroup {
  readonly name: string
  readonly parameters: readonly Parameter[]
  /** L2 bound of this group's part of a unit's gradient. */
  readonly bound: number
  /** Which of the step's releases it is part of. */
  readonly release: 'gradient' | 'expert load'
}

export interface Clipping {
  readonly mode: ClippingMode
  readonly maxGradNorm: number
  readonly groups: readonly ClippingGroup[]
}

/** Share of a step's budget that the release of the experts' loads takes where there is one: 1 % more noise on gradients. */
export const loadWeight = 0.02 / 1.02

/** What a step adds noise to: sums over units, each with the L2 bound of one unit's part and its share of the budget. */
export function releasesOf({ maxGradNorm, groups }: Clipping): Release[] {
  const load = groups.find(({ release }) => release === 'expert load')
  if (!load) return [{ name: 'gradient', bound: maxGradNorm, weight: 1 }]
  return [
    { name: 'gradient', bound: maxGradNorm, weight: 1 - loadWeight },
    { name: load.release, bound: load.bound, weight: loadWeight },
  ]
}

/** Stability constant of AUTO-S, in units of the gradient norm; the value of the paper. */
export const automaticStability = 0.01

/**
 * Splits parameters into clipping groups.
 *
 * Guarantee. The L2 norm of a unit's clipped gradient over all groups of weights together is at most `maxGradNorm`: the
 * squares of the groups' bounds sum to its square, and each group's factor keeps its part within the group's bound. The
 * loads of the experts are a group of their own, within their own bound.
 *
 * | case | result |
 * |---|---|
 * | maxGradNorm outside [1e-30, 1e29], NaN | OutOfRangeError: float32 could not hold the bound, or a sum over 2^31 units |
 * | no trainable parameter | DpMoeError INVALID_ARGUMENT |
 * | a parameter listed twice | counted once |
 * | load estimates with automatic clipping | DpMoeError INVALID_ARGUMENT: every unit's load would be blown up to the bound |
 */
export function clippingGroups(mode: ClippingMode, maxGradNorm: number, parameters: readonly Parameter[]): Clipping {
  if (!clippingModes.includes(mode)) throw new OutOfRangeError('clipping', `one of ${clippingModes.join(', ')}`, mode)
  if (!(Number.isFinite(maxGradNorm) && maxGradNorm >= 1e-30 && maxGradNorm <= 1e29)) {
    throw new OutOfRangeError('maxGradNorm', 'a number from 1e-30 to 1e29', maxGradNorm)
  }
  const all = [...new Set(parameters)].filter((parameter) => parameter.trainable)
  const trained = all.filter((parameter) => !(parameter instanceof LoadEstimate))
  const estimates = all.filter((parameter) => parameter instanceof LoadEstimate)
  if (trained.length === 0)
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected at least one trainable parameter, got none')
  if (mode === 'automatic' && estimates.length > 0) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      'clipping: automatic is not offered with released loads, which it would scale up to their bound; use flat or per-layer',
    )
  }
  return { mode, maxGradNorm, groups: [...gradientGroups(mode, maxGradNorm, trained), ...loadGroup(estimates)] }
}

function gradientGroups(mode: ClippingMode, maxGradNorm: number, trained: readonly Parameter[]): ClippingGroup[] {
  const release = 'gradient'
  if (mode !== 'per-layer') return [{ name: 'all', parameters: trained, bound: maxGradNorm, release }]
  const layers = new Map<string, Parameter[]>()
  for (const parameter of trained) {
    const layer = layerOf(parameter.name)
    layers.set(layer, [...(layers.get(layer) ?? []), parameter])
  }
  const bound = maxGradNorm / Math.sqrt(layers.size)
  return [...layers].map(([name, members]) => ({ name, parameters: members, bound, release }))
}

function loadGroup(estimates: readonly LoadEstimate[]): ClippingGroup[] {
  if (estimates.length === 0) return []
  return [{ name: 'expert load', parameters: estimates, bound: loadBound(estimates), release: 'expert load' }]
}

/** `layers.3.attention.query.weight` -> `layers.3`; a name without an index is its own first part. */
function layerOf(name: string): string {
  return /^.*?\.\d+(?=\.)/.exec(name)?.[0] ?? name.split('.')[0]!
}
