import { createHash } from 'node:crypto'
import { OutOfRangeError } from '../errors.js'

/** Positions of a data set's examples, in ascending order; every example is in exactly one of the two. */
export interface Split {
  training: Int32Array
  validation: Int32Array
}

/**
 * Splits texts by a fixed, public rule: a text is for validation when the first 32 bits of the SHA-256 of its UTF-8
 * bytes, read as a fraction in [0, 1), are at least 1 - `fraction`.
 *
 * A text's side depends on that text alone: the same on every machine and in every order, equal texts are on one side,
 * and removing other texts moves none.
 *
 * @param fraction expected share of validation texts, in (0, 1)
 * @throws OutOfRangeError for a fraction outside (0, 1), or when one side would be empty
 */
export function splitByText(texts: readonly string[], fraction: number): Split {
  if (!(fraction > 0 && fraction < 1)) {
    throw new OutOfRangeError('the validation fraction', 'a number between 0 and 1', fraction)
  }
  const sides = texts.map((text) => positionOf(text) >= 1 - fraction)
  const positions = (side: boolean) => Int32Array.from(sides.keys()).filter((index) => sides[index] === side)
  const split = { training: positions(false), validation: positions(true) }
  if (split.training.length === 0 || split.validation.length === 0) {
    const expected = 'a number that leaves examples on both sides'
    throw new OutOfRangeError('the validation fraction', expected, `${fraction} (of ${texts.length} examples)`)
  }
  return split
}

/** A text's place in [0, 1), by its content alone. */
function positionOf(text: string): number {
  return createHash('sha256').update(text, 'utf8').digest().readUInt32BE(0) / 2 ** 32
}
