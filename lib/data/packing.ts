import { OutOfRangeError } from '../errors.js'

/** One unit's rows: token ids, and a weight for each when the unit is a bag. */
export interface EncodedUnit {
  ids: Int32Array
  weights?: Float32Array
  /** Rows of each of its sequences, where the unit is a user with several; default: one of all rows. */
  sequences?: Int32Array
  /** Position of the unit in its data set. */
  unit: number
}

/**
 * Units side by side, R rows in all, never padded and never split.
 *
 * Unit b owns the rows [offsets[b], offsets[b + 1]); a unit of an empty text owns none.
 */
export interface PackedBatch {
  /** Token id of each row [R]. */
  ids: Int32Array
  /** Weight of each row [R]; absent where the units are sequences. */
  weights?: Float32Array
  /** Place of each row in its sequence, from 0 [R]. */
  positions: Int32Array
  /** First row of each unit, and R [B + 1]. */
  offsets: Int32Array
  /** Data set position of each unit [B]. */
  units: Int32Array
  /** Where units hold several sequences: the first row of each sequence, and R [S + 1]. */
  sequenceOffsets?: Int32Array
  /** With `sequenceOffsets`: the first sequence of each unit, and S [B + 1]. */
  unitSequences?: Int32Array
}

/**
 * Packs units in the order given.
 *
 * @throws RangeError when some units have weights and others have none, or the rows pass 2^31 - 1
 */
export function packBatch(units: readonly EncodedUnit[]): PackedBatch {
  const rows = units.reduce((sum, unit) => sum + unit.ids.length, 0)
  if (rows > 0x7fffffff) throw new OutOfRangeError('the batch', 'at most 2^31 - 1 rows', rows)
  const weighted = units.filter((unit) => unit.weights !== undefined).length
  if (weighted !== 0 && weighted !== units.length) {
    throw new OutOfRangeError('the units of a batch', 'weights on all or on none', `${weighted} of ${units.length}`)
  }
  const batch: PackedBatch = {
    ids: new Int32Array(rows),
    positions: new Int32Array(rows),
    offsets: new Int32Array(units.length + 1),
    units: Int32Array.from(units, (unit) => unit.unit),
  }
  if (weighted > 0) batch.weights = new Float32Array(rows)
  const bounds = [0]
  const firsts = [0]
  let row = 0
  units.forEach((unit, index) => {
    batch.ids.set(unit.ids, row)
    if (unit.weights !== undefined) batch.weights!.set(unit.weights, row)
    for (const length of unit.sequences ?? [unit.ids.length]) {
      for (let position = 0; position < length; position++) batch.positions[row++] = position
      bounds.push(row)
    }
    firsts.push(bounds.length - 1)
    batch.offsets[index + 1] = row
  })
  if (units.some((unit) => unit.sequences !== undefined)) {
    batch.sequenceOffsets = Int32Array.from(bounds)
    batch.unitSequences = Int32Array.from(firsts)
  }
  return batch
}

/** Consecutive units [start, end) of a batch. */
export interface UnitRange {
  start: number
  end: number
}

/**
 * Cuts a batch into micro-batches of consecutive units whose rows fit a budget. Units are never split: one that is
 * longer than the budget gets a micro-batch of its own. An empty batch gives none.
 *
 * @param lengths rows of each unit, >= 0
 * @param maxRows rows a micro-batch may hold, >= 1
 */
export function splitIntoMicroBatches(lengths: ArrayLike<number>, maxRows: number): UnitRange[] {
  if (!(maxRows >= 1)) throw new OutOfRangeError('maxRows', 'at least 1', maxRows)
  const ranges: UnitRange[] = []
  let start = 0
  let rows = 0
  for (let unit = 0; unit < lengths.length; unit++) {
    if (unit > start && rows + lengths[unit]! > maxRows) {
      ranges.push({ start, end: unit })
      start = unit
      rows = 0
    }
    rows += lengths[unit]!
  }
  if (start < lengths.length) ranges.push({ start, end: lengths.length })
  return ranges
}
