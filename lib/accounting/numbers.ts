import { OutOfRangeError } from '../errors.js'

/** Smallest delta an accountant answers for: below it the tails of the noise are cut. */
export const MIN_DELTA = 1e-30
/** Smallest and largest noise multiplier that the accountants' quadrature is made for. */
export const MIN_NOISE_MULTIPLIER = 0.01
export const MAX_NOISE_MULTIPLIER = 1e6
/** Most repetitions of one event. */
export const MAX_COUNT = 1e9

/** Whether a value is a number between two others; text that JavaScript would take for one is not. */
export function isWithin(value: unknown, least: number, most: number): value is number {
  return typeof value === 'number' && value >= least && value <= most
}

export function requireNoiseMultiplier(value: number, parameter = 'noiseMultiplier'): number {
  if (!isWithin(value, MIN_NOISE_MULTIPLIER, MAX_NOISE_MULTIPLIER)) {
    throw new OutOfRangeError(parameter, `a number in [${MIN_NOISE_MULTIPLIER}, ${MAX_NOISE_MULTIPLIER}]`, value)
  }
  return value
}

export function requireSampleRate(value: number, parameter = 'sampleRate'): number {
  if (!isWithin(value, 0, 1)) throw new OutOfRangeError(parameter, 'a number in [0, 1]', value)
  return value
}

export function requireDelta(value: number, parameter = 'delta'): number {
  if (!(isWithin(value, MIN_DELTA, 1) && value < 1)) {
    throw new OutOfRangeError(parameter, `a number in [${MIN_DELTA}, 1)`, value)
  }
  return value
}

export function requireEpsilon(value: number, parameter = 'epsilon'): number {
  if (!isWithin(value, 0, Number.MAX_VALUE)) {
    throw new OutOfRangeError(parameter, 'a finite number >= 0', value)
  }
  return value
}

export function requireCount(value: number, parameter = 'count', least = 0): number {
  if (!(Number.isInteger(value) && value >= least && value <= MAX_COUNT)) {
    throw new OutOfRangeError(parameter, `a whole number in [${least}, ${MAX_COUNT}]`, value)
  }
  return value
}
