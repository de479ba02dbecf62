import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { openAdapted } from './adapted-model.js'
import type { GenerativeModel } from './generation/generate.js'
import { holdsAdapters } from './hugging-face/adapter-config.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import { modelFromPretrained } from './model-from-pretrained.js'
import { languageArchitectures, readTask } from './open-model.js'

/**
 * Reads a language model, a Decoder or a SwitchTransformer; with the adapters in its weights where a folder holds these.
 *
 * @throws DpMoeError MODEL_FORMAT for another model; else as `modelFromPretrained` and `openAdapted`
 */
export async function openLanguageModel(device: Device, folder: string): Promise<GenerativeModel> {
  const task = await readTask(folder)
  const path = join(folder, configFile)
  const { model_type: modelType } = await readJsonObject(path)
  if (task === 'classification' || modelType === 'bert' || modelType === 'bert_moe') {
    const known = languageArchitectures.join(', ')
    const message = `${path}: expected a language model (${known}), got an encoder of type '${modelType}'`
    throw new DpMoeError('MODEL_FORMAT', message)
  }
  if (await holdsAdapters(folder)) return (await openAdapted(device, folder)).model as GenerativeModel
  return (await modelFromPretrained(device, folder, task)) as GenerativeModel
}
