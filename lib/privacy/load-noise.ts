import { type LoadEstimate, loadBound } from '../autograd/load-balance.js'
import { loadWeight } from './clipping.js'

/** How noisy the released loads are, as fractions of a uniform load. */
export interface LoadNoise {
  /** Standard deviation of one expert's load in one release. */
  readonly ofRelease: number
  /** The same of the estimate, after smoothing. */
  readonly ofEstimate: number
  /** Weight of the newest release in the estimate. */
  readonly smoothing: number
}

/** Noise of the estimate that smoothing aims at. */
const AIM = 0.1

/** A slower estimate would lag behind the training. */
const SLOWEST = 0.02

/**
 * The noise of released loads from public numbers, and the smoothing chosen from it: an exponential moving average with
 * weight a on the newest value has sqrt(a / (2 - a)) of the noise of one. No estimates: undefined.
 */
export function loadNoise(
  estimates: readonly LoadEstimate[],
  noiseMultiplier: number,
  expectedBatchSize: number,
): LoadNoise | undefined {
  if (estimates.length === 0) return undefined
  const deviation = (noiseMultiplier * loadBound(estimates)) / Math.sqrt(loadWeight) / expectedBatchSize
  const ofRelease = Math.max(
    ...estimates.map(({ experts, expertsPerToken }) => (deviation * experts) / expertsPerToken),
  )
  const ratio = ofRelease > 0 ? (AIM / ofRelease) ** 2 : Infinity
  const smoothing = ratio === Infinity ? 1 : Math.min(1, Math.max(SLOWEST, (2 * ratio) / (1 + ratio)))
  return { ofRelease, ofEstimate: ofRelease * Math.sqrt(smoothing / (2 - smoothing)), smoothing }
}
