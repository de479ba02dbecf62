import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf, requireAligned, requireShared } from './layout.js'
import type { Tape } from './tape.js'

/**
 * Rotary position embedding (arXiv 2104.09864), the halves of a head as pairs: x [rows, heads * headSize], positions
 * [rows] int32, inverseFrequency [headSize / 2] -> [rows, heads * headSize].
 */
export function rotate(tape: Tape, x: Tensor, positions: Tensor, inverseFrequency: Tensor): Tensor {
  requireAligned('rotate', x, positions)
  requireShared('rotate', 'the frequencies', inverseFrequency)
  const headSize = 2 * inverseFrequency.size
  const [rows, d] = x.shape as [number, number]
  if (x.shape.length !== 2 || headSize === 0 || d % headSize !== 0) {
    throw new DpMoeError('SHAPE_MISMATCH', `rotate: expected x [rows, heads * ${headSize}], got ${describe(x)}`)
  }
  const turned = (input: Tensor, inverse: boolean) => {
    const y = tape.device.empty(x.shape, { layout: layoutOf(x), dtype: x.dtype })
    const heads = d / headSize
    tape.device.run('rotaryEmbedding', { x: input, positions, inverseFrequency, y, rows, heads, headSize, inverse })
    return y
  }
  const y = turned(x, false)
  tape.record([y], [x], [], ([dy]) => tape.addGradient(x, turned(dy!, true)))
  return y
}
