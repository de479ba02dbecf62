import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf, requireShared, requireUnits, type UnitLayout } from './layout.js'
import type { Parameter } from './parameter.js'
import type { Tape } from './tape.js'

/** Rows of a table: ids [rows] int32 with the layout of the batch, table [vocabulary, d] -> scale * table[ids] [rows, d]. */
export function embedding(tape: Tape, ids: Tensor, table: Parameter, scale = 1): Tensor {
  const layout = requireUnits('embedding', ids)
  requireShared('embedding', 'the table', table.tensor)
  const { device } = tape
  const [vocabulary, d] = table.shape
  if (table.shape.length !== 2) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `embedding: expected a table [vocabulary, d], got [${table.shape.join(', ')}]`,
    )
  }
  const rows = layout.rows
  const y = device.empty([rows, d!], { layout, dtype: device.info.precision })
  device.run('embedding', { table: table.tensor, ids, y, rows, d: d!, vocabulary: vocabulary!, scale })
  tape.record([y], [], [table], ([gradient]) => {
    let dy = gradient!
    if (scale !== 1) {
      dy = device.empty(y.shape, { layout, dtype: y.dtype })
      device.run('add', { a: gradient!, y: dy, size: dy.size, alpha: scale, beta: 0 })
    }
    tape.addSite({ kind: 'embedding', parameter: table, dy, ids, segments: layout.segments })
  })
  return y
}

/**
 * One row per unit: the sum of its rows, each times its weight [rows]; without weights their mean. An empty unit gives
 * zeros. x [rows, d] -> [units, d].
 */
export function poolPerUnit(tape: Tape, x: Tensor, weights?: Tensor): Tensor {
  const layout = requireUnits('poolPerUnit', x)
  const target = { offsets: layout.offsetsTensor, count: layout.units, layout: layout.perUnit }
  return poolRows('poolPerUnit', tape, x, weights, target)
}

/** As poolPerUnit with one row per sequence, which is the same where every unit is one sequence: -> [sequences, d]. */
export function poolPerSequence(tape: Tape, x: Tensor, weights?: Tensor): Tensor {
  const layout = requireUnits('poolPerSequence', x)
  const target = { offsets: layout.sequenceOffsets, count: layout.sequenceCount, layout: layout.perSequence }
  return poolRows('poolPerSequence', tape, x, weights, target)
}

interface PoolTarget {
  readonly offsets: Tensor
  readonly count: number
  readonly layout: UnitLayout
}

function poolRows(operation: string, tape: Tape, x: Tensor, weights: Tensor | undefined, target: PoolTarget): Tensor {
  const layout = requireUnits(operation, x)
  if (weights && layoutOf(weights) !== layout) {
    throw new DpMoeError('UNIT_MIXING', `${operation}: weights ${describe(weights)} do not belong to ${describe(x)}`)
  }
  const { device } = tape
  const d = x.size / Math.max(1, layout.rows)
  const width = x.shape.length === 1 ? 1 : x.shape[1]!
  if (layout.rows > 0 && d !== width) {
    throw new DpMoeError('SHAPE_MISMATCH', `${operation}: expected x [rows, d], got ${describe(x)}`)
  }
  const shape = x.shape.length === 1 ? [target.count] : [target.count, width]
  const y = device.empty(shape, { layout: target.layout, dtype: x.dtype })
  const common = { weights, segmentOffsets: target.offsets, rows: layout.rows, d: width, units: target.count }
  device.run('pool', { ...common, x, y })
  tape.record([y], [x], [], ([dy]) => {
    const dx = device.empty(x.shape, { layout, dtype: x.dtype })
    device.run('poolBackward', { ...common, dy: dy!, dx })
    tape.addGradient(x, dx)
  })
  return y
}

/** The mean of a unit's row losses, [rows] -> [units]. */
export function meanPerUnit(tape: Tape, rowLosses: Tensor): Tensor {
  const layout = requireUnits('meanPerUnit', rowLosses)
  return layout.perUnit === layout ? rowLosses : poolPerUnit(tape, rowLosses)
}

/** Marks a device tensor as holding a value for each row of `layout`. */
export function withLayout(tensor: Tensor, layout: UnitLayout): Tensor {
  if (tensor.shape[0] !== layout.rows) {
    throw new DpMoeError('SHAPE_MISMATCH', `Expected ${layout.rows} rows for ${layout.name}, got ${describe(tensor)}`)
  }
  return tensor.withLayout(layout)
}
