/**
 * Run as a process of its own by `dp-moe doctor` and `dp-moe build`, because loading a damaged addon ends the process that
 * does it. Writes one JSON line for each thing it finds out, the addon's path before it is loaded.
 */
import { writeSync } from 'node:fs'
import { addon, locateAddon } from '../engine/addon.js'
import { Device, type DeviceName } from '../engine/device.js'

function tell(fact: object): void {
  writeSync(1, `${JSON.stringify(fact)}\n`)
}

function reasonOf(error: unknown): string {
  return error instanceof Error ? error.message : String(error)
}

function tellBackend(name: DeviceName): void {
  try {
    using device = Device.open(name)
    tell({ backend: { available: true, ...device.info } })
  } catch (error) {
    tell({ backend: { name, available: false, reason: reasonOf(error) } })
  }
}

/** The driver, then each device; what is missing of them as the one backend `cuda`. */
function tellCuda(): void {
  try {
    const cuda = addon().cudaDevices()
    tell({ cuda })
    if (cuda.devices.length === 0) tellBackend('cuda')
    for (const index of cuda.devices.keys()) tellBackend(`cuda:${index}`)
  } catch (error) {
    tell({ backend: { name: 'cuda', available: false, reason: reasonOf(error) } })
  }
}

try {
  tell({ addon: locateAddon() })
  tellBackend('cpu')
  tellCuda()
} catch (error) {
  tell({ missing: reasonOf(error) })
}
