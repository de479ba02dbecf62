import { addon } from '../lib/engine/addon.js'
import { Device, type Precision } from '../lib/engine/device.js'

/** Why there is no real CUDA device here, or undefined where there is one. */
export function whyNoRealCuda(): string | undefined {
  try {
    const { driver, devices } = addon().cudaDevices()
    const emulated = devices.some(({ name }) => name === 'Emulated device')
    return emulated ? `${driver} is the emulated driver` : undefined
  } catch (error) {
    return (error as Error).message
  }
}

/** Opens the first device, or ends the process with the reason. */
export function openRealCuda(precision: Precision): Device {
  const reason = whyNoRealCuda()
  if (reason !== undefined) {
    console.error(`This needs a CUDA device: ${reason}`)
    process.exit(1)
  }
  return Device.open('cuda', { precision })
}
