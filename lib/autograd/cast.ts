import type { Device } from '../engine/device.js'
import type { DType } from '../engine/dtype.js'
import type { Tensor } from '../engine/tensor.js'
import { layoutOf } from './layout.js'

/** x itself, or its values rounded to `dtype`. */
export function converted(device: Device, x: Tensor, dtype: DType): Tensor {
  if (x.dtype === dtype) return x
  const y = device.empty(x.shape, { layout: layoutOf(x), dtype })
  device.run('cast', { x, y, size: x.size })
  return y
}
