import { copyFile, readdir } from 'node:fs/promises'
import { join, resolve } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { withFileErrors } from '../files.js'
import { type AdaptedModelOptions, findAdapters, openFound } from './adapted-model.js'
import { holdsAdapters } from './hugging-face/adapter-config.js'
import { Checkpoint, configFile, indexFile } from './hugging-face/checkpoint.js'
import type { WeightType } from './hugging-face/save-weights.js'
import {
  certificateFile,
  copyCompanions,
  copyIfThere,
  requireApart,
  requireFreeFolder,
  writeModelFolder,
} from './model-folder.js'

export interface MergeOptions extends AdaptedModelOptions {
  /** Replaces a folder that holds a model and nothing else. */
  readonly overwrite?: boolean
  /** What weights are written as. Default: as those of the model that the adapters belong to. */
  readonly dtype?: WeightType
}

export interface MergeResult {
  /** The folder of the model that was adapted; undefined where the weights were plain already. */
  readonly base: string | undefined
  /** Number of matrices that an adapter changed. */
  readonly merged: number
}

/**
 * Writes a model with plain weights from LoRA adapters (the layout of PEFT) and the model that they belong to: (alpha / rank) B A
 * is added to each matrix in float32, and the sum is saved, rounded once where its type is narrower. Its tokenizer and the adapters'
 * certificate come with it. A model without adapters is copied.
 *
 * Guarantee. `output` is what it was before, or the whole new model; when anything fails, nothing is left.
 *
 * @throws DpMoeError FILE_EXISTS where `output` holds anything, with `overwrite` anything but a model or a model that is read, the
 *   adapters' own included; else as opening the model
 */
export async function mergeModel(
  device: Device,
  folder: string,
  output: string,
  { overwrite = false, dtype, ...options }: MergeOptions = {},
): Promise<MergeResult> {
  const target = resolve(output)
  await requireFreeFolder(target, folder, overwrite)
  if (!(await holdsAdapters(folder))) {
    if (dtype !== undefined) {
      const message = `${folder} has plain weights already, which are copied as they are; dp-moe convert writes them in another type`
      throw new DpMoeError('INVALID_ARGUMENT', message)
    }
    await writeModelFolder(target, overwrite, (temporary) => copyModel(folder, temporary))
    return { base: undefined, merged: 0 }
  }
  const found = await findAdapters(folder, options)
  const { baseFolder } = found
  await requireApart(target, baseFolder)
  const { model, merged } = await openFound(device, found)
  using _ = model
  const written = dtype ?? (await weightTypeOf(baseFolder))
  options.signal?.throwIfAborted()
  await writeModelFolder(target, overwrite, async (temporary) => {
    await model.savePretrained(temporary, { dtype: written })
    await copyCompanions(baseFolder, temporary)
    await copyCompanions(folder, temporary)
    await copyIfThere(folder, temporary, certificateFile)
    options.signal?.throwIfAborted()
  })
  return { base: baseFolder, merged }
}

async function copyModel(folder: string, target: string): Promise<void> {
  await (await Checkpoint.open(folder))[Symbol.asyncDispose]()
  for (const name of await withFileErrors('read', folder, () => readdir(folder))) {
    if (!name.endsWith('.safetensors')) continue
    await withFileErrors('write', join(target, name), () => copyFile(join(folder, name), join(target, name)))
  }
  for (const name of [configFile, indexFile, certificateFile]) await copyIfThere(folder, target, name)
  await copyCompanions(folder, target)
}

/** The type of a model's weights where all have the same, else float32. */
async function weightTypeOf(folder: string): Promise<WeightType> {
  await using checkpoint = await Checkpoint.open(folder)
  const types = new Set(Array.from(checkpoint.names(), (name) => checkpoint.entry(name).dtype))
  const [only] = types
  return types.size === 1 && (only === 'BF16' || only === 'F16') ? only : 'F32'
}
