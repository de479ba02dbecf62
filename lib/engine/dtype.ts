import { DpMoeError, invalid } from '../errors.js'

/** What a tensor holds, in the order of native/include/dtype.h. */
export const dtypes = ['float32', 'float64', 'int32', 'bfloat16'] as const

export type DType = (typeof dtypes)[number]

/** What goes into and comes out of a tensor; the values of bfloat16 tensors travel as float32. */
export type TypedArray = Float32Array | Float64Array | Int32Array

/** Elements of a shape; throws for one that is none. */
export function sizeOf(shape: readonly number[]): number {
  const size = shape.reduce((product, extent) => product * extent, 1)
  if (shape.some((extent) => !(Number.isInteger(extent) && extent >= 0)) || !Number.isSafeInteger(size)) {
    throw new DpMoeError('SHAPE_MISMATCH', invalid('shape', 'integers >= 0', `[${shape.join(', ')}]`))
  }
  return size
}
