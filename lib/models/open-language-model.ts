import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { openAdapted } from './adapted-model.js'
import type { GenerativeModel } from './generation/generate.js'
import { holdsAdapters } from './hugging-face/adapter-config.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import { modelFromPretrained, type PretrainedTask } from './model-from-pretrained.js'
import { languageArchitectures, readTask } from './open-model.js'

/**
 * What the language model of a folder does, of its config.json alone; undefined where that names no architecture.
 *
 * @throws DpMoeError MODEL_FORMAT for a classifier or an encoder, which write no texts
 */
export async function requireLanguageModel(folder: string): Promise<PretrainedTask | undefined> {
  const path = join(folder, configFile)
  const { model_type: modelType, format } = await readJsonObject(path)
  const isOurs = typeof format === 'string' && format.startsWith('dp-moe-model')
  const task = isOurs ? 'classification' : await readTask(folder)
  if (task === 'classification' || modelType === 'bert' || modelType === 'bert_moe') {
    const known = languageArchitectures.join(', ')
    const got = isOurs ? 'a classifier' : `an encoder of type '${modelType}'`
    const message = `${path}: expected a language model (${known}), got ${got}. It gives classes: read it with dp-moe predict`
    throw new DpMoeError('MODEL_FORMAT', message)
  }
  return task
}

/**
 * Reads a language model, a Decoder or a SwitchTransformer; with the adapters in its weights where a folder holds these.
 *
 * @throws DpMoeError MODEL_FORMAT for another model; else as `modelFromPretrained` and `openAdapted`
 */
export async function openLanguageModel(device: Device, folder: string): Promise<GenerativeModel> {
  const task = await requireLanguageModel(folder)
  if (await holdsAdapters(folder)) return (await openAdapted(device, folder)).model as GenerativeModel
  return (await modelFromPretrained(device, folder, task)) as GenerativeModel
}
