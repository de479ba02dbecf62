import type { Tensor } from '../engine/tensor.js'
import { refuseMixing } from './layout.js'
import type { Tape } from './tape.js'

/**
 * Sum over all rows of a tensor that belongs to no unit: x [rows, d] -> [d]. On rows of units it is refused (UNIT_MIXING):
 * a sum over the batch inside a model would let one unit's gradient read the others.
 */
export function sumRows(tape: Tape, x: Tensor): Tensor {
  refuseMixing('sumRows', x, 'poolPerUnit')
  const [rows, d] = [x.shape[0]!, x.size / Math.max(1, x.shape[0]!)]
  const y = tape.device.empty([d], { dtype: x.dtype })
  const offsets = tape.device.tensor(Int32Array.of(0, rows), [2], 'int32')
  const weights = tape.device.tensor(new Float32Array(rows).fill(1), [rows])
  tape.device.run('pool', { x, weights, segmentOffsets: offsets, y, rows, d, units: 1 })
  return y
}

/** Mean over all rows of a tensor that belongs to no unit; refused (UNIT_MIXING) on rows of units, as `sumRows`. */
export function meanRows(tape: Tape, x: Tensor): Tensor {
  refuseMixing('meanRows', x, 'poolPerUnit')
  const [rows, d] = [x.shape[0]!, x.size / Math.max(1, x.shape[0]!)]
  const y = tape.device.empty([d], { dtype: x.dtype })
  const offsets = tape.device.tensor(Int32Array.of(0, rows), [2], 'int32')
  tape.device.run('pool', { x, segmentOffsets: offsets, y, rows, d, units: 1 })
  return y
}
