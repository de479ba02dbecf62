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
}

export interface Clipping {
  readonly mode: ClippingMode
  readonly maxGradNorm: number
  readonly groups: readonly ClippingGroup[]
}

/** Stability constant of AUTO-S, in units of the gradient norm; the value of the paper. */
export const automaticStability = 0.01

/**
 * Splits parameters into clipping groups.
 *
 * Guarantee. The L2 norm of a unit's clipped gradient over all groups together is at most `maxGradNorm`: the squares of
 * the groups' bounds sum to its square, and each group's factor keeps its part within the group's bound.
 *
 * | case | result |
 * |---|---|
 * | maxGradNorm outside [1e-30, 1e29], NaN | OutOfRangeError: float32 could not hold the bound, or a sum over 2^31 units |
 * | no trainable parameter | DpMoeError INVALID_ARGUMENT |
 * | a parameter listed twice | counted once |
 */
export function clippingGroups(mode: ClippingMode, maxGradNorm: number, parameters: readonly Parameter[]): Clipping {
  if (!clippingModes.includes(mode)) throw new OutOfRangeError('clipping', `one of ${clippingModes.join(', ')}`, mode)
  if (!(Number.isFinite(maxGradNorm) && maxGradNorm >= 1e-30 && maxGradNorm <= 1e29)) {
    throw new OutOfRangeError('maxGradNorm', 'a number from 1e-30 to 1e29', maxGradNorm)
  }
  const trained = [...new Set(parameters)].filter((parameter) => parameter.trainable)
  if (trained.length === 0)
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected at least one trainable parameter, got none')
  if (mode !== 'per-layer')
    return { mode, maxGradNorm, groups: [{ name: 'all', parameters: trained, bound: maxGradNorm }] }
  const layers = new Map<string, Parameter[]>()
  for (const parameter of trained) {
    const layer = layerOf(parameter.name)
    layers.set(layer, [...(layers.get(layer) ?? []), parameter])
  }
  const bound = maxGradNorm / Math.sqrt(layers.size)
  return { mode, maxGradNorm, groups: [...layers].map(([name, members]) => ({ name, parameters: members, bound })) }
}

/** `layers.3.attention.query.weight` -> `layers.3`; a name without an index is its own first part. */
function layerOf(name: string): string {
  return /^.*?\.\d+(?=\.)/.exec(name)?.[0] ?? name.split('.')[0]!
}
