import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { type HubOptions, isHubName, modelFolder } from '../hub/index.js'
import { adapterWeightsFile, baseFingerprintKey, readAdapterConfig } from './hugging-face/adapter-config.js'
import { mergeAdapterFile } from './hugging-face/adapters.js'
import { configFile, exists, readJsonObject } from './hugging-face/checkpoint.js'
import { labelsOf } from './hugging-face/config.js'
import { modelFingerprint } from './hugging-face/fingerprint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { modelFromPretrained } from './model-from-pretrained.js'
import { readTask } from './open-model.js'
import { SafetensorsFile } from './safetensors.js'

export interface AdaptedModelOptions extends HubOptions {
  /** The model that the adapters belong to: a folder, or owner/name on the hub. Default: as adapter_config.json names it. */
  readonly base?: string
}

/** A model whose adapters are in its weights. */
export interface AdaptedModel {
  readonly model: HuggingFaceModel
  /** The folder of the model that was adapted. */
  readonly baseFolder: string
  /** Number of matrices that an adapter changed. */
  readonly merged: number
}

/**
 * Opens a folder of LoRA adapters in the layout of PEFT and the model that they belong to, as one model with plain weights.
 *
 * Guarantee. Adapters that dp-moe wrote are added to the very model that they were trained on, or refused.
 *
 * @throws DpMoeError FILE_NOT_FOUND, NETWORK where that model cannot be had; MODEL_FORMAT where it is another one, or a kind of
 *   adapter is not offered
 */
export async function openAdapted(
  device: Device,
  folder: string,
  { base, ...hub }: AdaptedModelOptions = {},
): Promise<AdaptedModel> {
  const { base: named, ...config } = await readAdapterConfig(folder)
  const baseFolder = await findBase(folder, base ?? named, hub)
  await requireBase(folder, baseFolder)
  const settings = (await exists(join(folder, configFile))) ? folder : baseFolder
  const labels = labelsOf(await readJsonObject(join(settings, configFile)))
  const task = await readTask(settings)
  const model = await modelFromPretrained(
    device,
    baseFolder,
    task,
    task === 'classification' && labels ? { labels } : {},
  )
  try {
    return { model, baseFolder, merged: await mergeAdapterFile(folder, model, config) }
  } catch (error) {
    model[Symbol.dispose]()
    throw error
  }
}

async function findBase(folder: string, base: string, hub: HubOptions): Promise<string> {
  if (isHubName(base) || (await exists(join(base, configFile)))) return modelFolder(base, hub)
  throw new DpMoeError(
    'FILE_NOT_FOUND',
    `${folder} holds adapters of ${base}, and no model is there. Say where it is: dp-moe merge --base`,
  )
}

async function requireBase(folder: string, baseFolder: string): Promise<void> {
  await using file = await SafetensorsFile.open(join(folder, adapterWeightsFile))
  const expected = file.metadata[baseFingerprintKey]
  if (expected === undefined || expected === (await modelFingerprint(baseFolder))) return
  throw new DpMoeError(
    'MODEL_FORMAT',
    `${baseFolder} is not the model that the adapters in ${folder} were trained on: its weights or its config.json differ`,
  )
}
