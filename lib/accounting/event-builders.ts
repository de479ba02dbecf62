import { OutOfRangeError } from '../errors.js'
import type {
  ComposedEvent,
  DpEvent,
  EpsilonDeltaEvent,
  FixedSizeSampledEvent,
  GaussianEvent,
  MixtureOfGaussiansEvent,
  PoissonSampledEvent,
  SelfComposedEvent,
  TruncatedPoissonSampledEvent,
  ZcdpEvent,
} from './events.js'
import { isWithin, requireCount, requireEpsilon, requireNoiseMultiplier, requireSampleRate } from './numbers.js'

/** @throws OutOfRangeError when noiseMultiplier is not in [0.01, 1e6]. */
export function gaussian(noiseMultiplier: number): GaussianEvent {
  return { type: 'gaussian', noiseMultiplier: requireNoiseMultiplier(noiseMultiplier) }
}

/** @throws OutOfRangeError when sampleRate is not in [0, 1]. */
export function poissonSampled(sampleRate: number, event: DpEvent): PoissonSampledEvent {
  return { type: 'poisson-sampled', sampleRate: requireSampleRate(sampleRate), event }
}

/** @throws OutOfRangeError when count is not a whole number in [0, 1e9]. */
export function selfComposed(count: number, event: DpEvent): SelfComposedEvent {
  return { type: 'self-composed', count: requireCount(count), event }
}

export function composed(...events: readonly DpEvent[]): ComposedEvent {
  return { type: 'composed', events }
}

/**
 * DP-SGD: `steps` Gaussian releases, each on a Poisson-sampled batch.
 *
 * @throws OutOfRangeError when an argument is outside its range.
 */
export function dpSgd(noiseMultiplier: number, sampleRate: number, steps: number): SelfComposedEvent {
  return selfComposed(steps, poissonSampled(sampleRate, gaussian(noiseMultiplier)))
}

/** @throws OutOfRangeError when an argument is outside its range, or maxBatchSize exceeds datasetSize. */
export function truncatedPoissonSampled(
  sampleRate: number,
  datasetSize: number,
  maxBatchSize: number,
  event: DpEvent,
): TruncatedPoissonSampledEvent {
  requireSampleRate(sampleRate)
  requirePart('maxBatchSize', maxBatchSize, datasetSize)
  return { type: 'truncated-poisson-sampled', sampleRate, datasetSize, maxBatchSize, event }
}

/** @throws OutOfRangeError when batchSize exceeds datasetSize, or either is no whole number >= 1. */
export function fixedSizeSampled(datasetSize: number, batchSize: number, event: DpEvent): FixedSizeSampledEvent {
  requirePart('batchSize', batchSize, datasetSize)
  return { type: 'fixed-size-sampled', datasetSize, batchSize, event }
}

/** @throws OutOfRangeError when a sensitivity is negative, or the probabilities are not as many or do not sum to 1. */
export function mixtureOfGaussians(
  noiseMultiplier: number,
  sensitivities: readonly number[],
  probabilities: readonly number[],
): MixtureOfGaussiansEvent {
  requireNoiseMultiplier(noiseMultiplier)
  const areMeans = Array.isArray(sensitivities) && sensitivities.every((value) => isWithin(value, 0, 1e6))
  if (!areMeans || sensitivities.length === 0) {
    throw new OutOfRangeError('sensitivities', 'one or more numbers in [0, 1e6]', JSON.stringify(sensitivities))
  }
  const areWeights = Array.isArray(probabilities) && probabilities.every((value) => isWithin(value, 0, 1))
  const sum = areWeights ? probabilities.reduce((total, value) => total + value, 0) : 0
  if (probabilities?.length !== sensitivities.length || !(Math.abs(sum - 1) < 1e-9)) {
    const expected = `${sensitivities.length} numbers >= 0 that sum to 1`
    throw new OutOfRangeError('probabilities', expected, JSON.stringify(probabilities))
  }
  return { type: 'mixture-of-gaussians', noiseMultiplier, sensitivities, probabilities }
}

/** @throws OutOfRangeError when rho is negative or not finite. */
export function zcdp(rho: number): ZcdpEvent {
  return { type: 'zcdp', rho: requireEpsilon(rho, 'rho') }
}

/** @throws OutOfRangeError when epsilon is negative or above 700, or delta is not in [0, 1). */
export function epsilonDelta(epsilon: number, delta: number): EpsilonDeltaEvent {
  if (!(requireEpsilon(epsilon) <= 700)) throw new OutOfRangeError('epsilon', 'a number in [0, 700]', epsilon)
  if (!(isWithin(delta, 0, 1) && delta < 1)) throw new OutOfRangeError('delta', 'a number in [0, 1)', delta)
  return { type: 'epsilon-delta', epsilon, delta }
}

function requirePart(parameter: string, value: number, datasetSize: number): void {
  requireCount(datasetSize, 'datasetSize', 1)
  requireCount(value, parameter, 1)
  if (value > datasetSize) throw new OutOfRangeError(parameter, `at most datasetSize = ${datasetSize}`, value)
}
