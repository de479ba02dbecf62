import { Device, type DeviceName, type Precision } from '../engine/device.js'

/** Where a model runs. */
export interface DeviceChoice {
  /** 'cpu', 'cuda' or 'cuda:N'. Default 'cpu'. */
  readonly device?: DeviceName | undefined
  /** What activations are stored in; 'bfloat16' on CUDA only. Default 'float32'. */
  readonly precision?: Precision | undefined
  /** Of the CPU. Default: what the container allows. */
  readonly threads?: number | undefined
}

/** @throws DpMoeError BACKEND_UNAVAILABLE with the reason */
export function openDevice({ device, precision, threads }: DeviceChoice): Device {
  return Device.open(device ?? 'cpu', { ...(precision && { precision }), ...(threads !== undefined && { threads }) })
}
