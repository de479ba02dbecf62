import { OutOfRangeError } from '../errors.js'

/** Throws unless `value` is an integer in [minimum, maximum]. */
export function requireInteger(name: string, value: number, minimum: number, maximum: number): void {
  if (!Number.isInteger(value) || value < minimum || value > maximum) {
    throw new OutOfRangeError(name, `an integer from ${minimum} to ${maximum}`, value)
  }
}
