import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf, requireShared, requireUnits } from './layout.js'
import type { Parameter } from './parameter.js'
import type { Tape } from './tape.js'

/** Layer norm over the last dimension: x [rows, d], weight and bias [d]. */
export function layerNorm(
  tape: Tape,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | undefined,
  epsilon = 1e-5,
): Tensor {
  const { device } = tape
  const [rows, d] = rowsOf('layerNorm', x, weight)
  if (bias) requireShared('layerNorm', 'the bias', bias.tensor)
  const layout = layoutOf(x)
  const like = { layout, dtype: x.dtype }
  const y = device.empty([rows, d], like)
  const mean = device.empty([rows])
  const rstd = device.empty([rows])
  device.run('layerNorm', { x, weight: weight.tensor, bias: bias?.tensor, y, mean, rstd, rows, d, epsilon })
  const backward = (dy: Tensor) => {
    const units = requireUnits('layerNorm', x)
    const dx = device.empty([rows, d], like)
    const dWeight = tape.trains(weight) ? device.empty([units.units, d]) : undefined
    const dBias = tape.trains(bias) ? device.empty([units.units, d]) : undefined
    device.run('layerNormBackward', {
      dy,
      x,
      weight: weight.tensor,
      mean,
      rstd,
      segmentOffsets: units.offsetsTensor,
      dx,
      dWeight,
      dBias,
      rows,
      d,
      units: units.units,
    })
    if (dWeight) tape.addSite({ kind: 'perUnit', parameter: weight, gradient: dWeight, units: units.units })
    if (dBias) tape.addSite({ kind: 'perUnit', parameter: bias!, gradient: dBias, units: units.units })
    tape.addGradient(x, dx)
  }
  tape.record([y], [x], [weight, bias], ([dy]) => backward(dy!), [mean, rstd])
  return y
}

/**
 * RMS norm (arXiv 1910.07467) over the last dimension, or over each of `heads` equal parts of it: x [rows, heads * d],
 * weight [d].
 */
export function rmsNorm(tape: Tape, x: Tensor, weight: Parameter, epsilon = 1e-6, heads = 1): Tensor {
  const { device } = tape
  const [rows, d] = rowsOf('rmsNorm', x, weight, heads)
  const layout = layoutOf(x)
  const like = { layout, dtype: x.dtype }
  const y = device.empty(x.shape, like)
  const rstd = device.empty([rows])
  device.run('rmsNorm', { x, weight: weight.tensor, y, rstd, rows, d, epsilon })
  const backward = (dy: Tensor) => {
    const units = requireUnits('rmsNorm', x)
    const dx = device.empty(x.shape, like)
    const offsets = units.offsets.map((row) => row * heads)
    const dWeight = tape.trains(weight) ? device.empty([units.units, d]) : undefined
    device.run('rmsNormBackward', {
      dy,
      x,
      weight: weight.tensor,
      rstd,
      segmentOffsets: heads === 1 ? units.offsetsTensor : device.tensor(offsets, [offsets.length], 'int32'),
      dx,
      dWeight,
      rows,
      d,
      units: units.units,
    })
    if (dWeight) tape.addSite({ kind: 'perUnit', parameter: weight, gradient: dWeight, units: units.units })
    tape.addGradient(x, dx)
  }
  tape.record([y], [x], [weight], ([dy]) => backward(dy!), [rstd])
  return y
}

/** How many vectors of the weight's size x holds, and that size. */
function rowsOf(operation: string, x: Tensor, weight: Parameter, heads = 1): readonly [number, number] {
  requireShared(operation, 'the weight', weight.tensor)
  const [rows, columns] = x.shape
  if (x.shape.length !== 2 || weight.size * heads !== columns) {
    const width = heads === 1 ? 'd' : `${heads} * d`
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `${operation}: expected x [rows, ${width}] and weight [d], got ${describe(x)} and weight [${weight.shape.join(', ')}]`,
    )
  }
  return [rows! * heads, weight.size]
}
