/**
 * Training of Mixture-of-Experts models with differential privacy.
 *
 * @packageDocumentation
 */
export * as accounting from './accounting/index.js'
export * as autograd from './autograd/index.js'
export * as data from './data/index.js'
export {
  Device,
  type DeviceInfo,
  type DeviceName,
  type DeviceOptions,
  type DType,
  type MemoryUse,
  type OpArguments,
  type OpName,
  type Precision,
  type RowLayout,
  Tensor,
  type TensorOptions,
  type TypedArray,
} from './engine/index.js'
export { DpMoeError, type ErrorCode, OutOfRangeError } from './errors.js'
export {
  type DatasetOptions,
  type DatasetSplit,
  type DownloadedDataset,
  downloadDataset,
  downloadModel,
  type HubOptions,
  type HubProgress,
  isHubName,
  modelFolder,
} from './hub/index.js'
export * as models from './models/index.js'
export {
  type AccumulateOptions,
  accumulateGradients,
  type BatchSums,
  type LossFunction,
  type MicroBatch,
  type MicroBatchSink,
  sumSink,
  type UnitBatch,
} from './nn/accumulate.js'
export * as nn from './nn/index.js'
export * as optim from './optim/index.js'
export * from './privacy/index.js'
export * from './train/index.js'
export { version } from './version.js'
