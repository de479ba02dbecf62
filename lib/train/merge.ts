import { type MergeOptions, type MergeResult, mergeModel } from '../models/merge.js'
import { type DeviceChoice, openDevice } from './open-device.js'
import { findReleaseFolder } from './run-folder.js'

/**
 * Writes the model of a run folder, a release folder, or a folder of LoRA adapters in the layout of PEFT, as a model folder with
 * plain weights (`models.mergeModel`).
 */
export async function merge(
  path: string,
  output: string,
  { threads, ...options }: MergeOptions & Pick<DeviceChoice, 'threads'> = {},
): Promise<MergeResult> {
  const folder = await findReleaseFolder(path)
  const device = openDevice({ threads })
  try {
    return await mergeModel(device, folder, output, options)
  } finally {
    device.close()
  }
}
