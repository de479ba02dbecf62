export type { CudaDevices, MemoryUse } from './addon.js'
export {
  Device,
  type DeviceInfo,
  type DeviceName,
  type DeviceOptions,
  type Precision,
  type TensorOptions,
} from './device.js'
export type { DType, TypedArray } from './dtype.js'
export { poissonSample, randomKey } from './random.js'
export type { OpArguments, OpName } from './signatures.js'
export { type RowLayout, Tensor } from './tensor.js'
