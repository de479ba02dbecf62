import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import type { HubOptions } from '../hub/index.js'
import { findBase } from './adapter-base.js'
import { type ReadAdapterConfig, readAdapterConfig } from './hugging-face/adapter-config.js'
import { configFile, exists, readJsonObject } from './hugging-face/checkpoint.js'
import { labelsOf } from './hugging-face/config.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { mergeAdapterFile } from './hugging-face/merge-adapters.js'
import { modelFromPretrained } from './model-from-pretrained.js'
import { readTask } from './open-model.js'

export interface AdaptedModelOptions extends HubOptions {
  /** The model that the adapters belong to: a folder, or owner/name on the hub. Default: found by its name in adapter_config.json. */
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

/** Adapters, and the folder of the model that they belong to. */
export interface FoundAdapters {
  readonly folder: string
  readonly baseFolder: string
  readonly config: ReadAdapterConfig
}

/** Finds the model that a folder of adapters belongs to, without reading either's weights into memory. */
export async function findAdapters(folder: string, options: AdaptedModelOptions = {}): Promise<FoundAdapters> {
  const config = await readAdapterConfig(folder)
  return { folder, config, baseFolder: await findBase(folder, config.base, options) }
}

/**
 * Opens a folder of LoRA adapters in the layout of PEFT and the model that they belong to, as one model with plain weights.
 *
 * Guarantee. Adapters that dp-moe wrote are added to the very model that they were trained on, or refused.
 *
 * @throws DpMoeError FILE_NOT_FOUND, NETWORK where that model cannot be had; MODEL_FORMAT where it is another one, or a kind of
 *   adapter is not offered, or adapters are missing
 */
export async function openAdapted(
  device: Device,
  folder: string,
  options: AdaptedModelOptions = {},
): Promise<AdaptedModel> {
  return openFound(device, await findAdapters(folder, options))
}

/** The model of adapters that were found, with plain weights. */
export async function openFound(device: Device, { folder, baseFolder, config }: FoundAdapters): Promise<AdaptedModel> {
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
