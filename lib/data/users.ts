import { OutOfRangeError } from '../errors.js'

/** Rows of a file put in the order of their users. */
export interface UserGroups {
  /** Positions of the rows kept, users one after another, each user's rows in the order of the file. */
  readonly order: Int32Array
  /** First entry of `order` of each user, and their number [users + 1]. */
  readonly unitOffsets: Int32Array
  /** Rows left out because their user had `most` already. */
  readonly leftOut: number
}

/**
 * Groups rows by user, in the order in which users first appear.
 *
 * Guarantee. Which rows of a user are kept is a function of that user's rows alone: the first `most` of them. Adding or
 * removing a user changes no other user's group.
 *
 * | rows | result |
 * |---|---|
 * | none | no users |
 * | a user with more than `most` rows | its first `most`, the others counted in `leftOut` |
 * | rows of a user scattered over the file | one group |
 *
 * @param groups whose each row is [rows]
 * @param most rows kept of a user, an integer >= 1
 */
export function groupByUser(groups: readonly string[], most: number): UserGroups {
  if (!(Number.isInteger(most) && most >= 1)) throw new OutOfRangeError('maxExamplesPerUser', 'an integer >= 1', most)
  const rowsOf = new Map<string, number[]>()
  for (const [row, group] of groups.entries()) {
    const rows = rowsOf.get(group)
    if (rows === undefined) rowsOf.set(group, [row])
    else if (rows.length < most) rows.push(row)
  }
  const unitOffsets = new Int32Array(rowsOf.size + 1)
  for (const [user, rows] of [...rowsOf.values()].entries()) unitOffsets[user + 1] = unitOffsets[user]! + rows.length
  const order = Int32Array.from([...rowsOf.values()].flat())
  return { order, unitOffsets, leftOut: groups.length - order.length }
}
