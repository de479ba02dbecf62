import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import type { HuggingFaceTokenizer } from '../../data/hugging-face-tokenizer.js'
import type { Device } from '../../engine/device.js'
import { DpMoeError } from '../../errors.js'
import { replaceFile, withFileErrors } from '../../files.js'
import { Initializer, UnfilledWeights } from '../../nn/initializer.js'
import { Module } from '../../nn/module.js'
import { Checkpoint, configFile, type JsonObject, readJsonObject } from './checkpoint.js'
import { labelsOrTwo, withoutPaths } from './config.js'
import { loadWeights } from './load-weights.js'
import { saveWeights, type WeightOptions } from './save-weights.js'
import type { TensorMap } from './tensor-map.js'

export interface SaveOptions extends WeightOptions {
  /** Written as tokenizer.json and tokenizer_config.json beside the weights. */
  readonly tokenizer?: HuggingFaceTokenizer
}

/** A model that reads and writes folders in the Hugging Face layout: config.json, safetensors, tokenizer.json. */
export abstract class HuggingFaceModel extends Module {
  /** What a config.json says of this model; keys that this library does not read are kept. */
  abstract configJson(): JsonObject

  /** How its parameters are spelled in a checkpoint. */
  abstract tensorMap(): TensorMap

  /**
   * Writes config.json and the weights, one tensor per expert, and the tokenizer if one is given.
   *
   * @throws DpMoeError DISK_FULL, FILE_ACCESS
   */
  async savePretrained(folder: string, { tokenizer, ...weights }: SaveOptions = {}): Promise<void> {
    await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
    await saveWeights(folder, this.tensorMap(), weights)
    const dtypes = { F32: 'float32', BF16: 'bfloat16', F16: 'float16' } as const
    const content = withoutPaths(this.configJson())
    // transformers 4.56 renamed the setting.
    const config = { ...content, ['dtype' in content ? 'dtype' : 'torch_dtype']: dtypes[weights.dtype ?? 'F32'] }
    await replaceFile(join(folder, configFile), `${JSON.stringify(config, null, 2)}\n`)
    if (tokenizer) await saveTokenizer(folder, tokenizer)
  }
}

/** Writes tokenizer.json and tokenizer_config.json. */
export async function saveTokenizer(folder: string, tokenizer: HuggingFaceTokenizer): Promise<void> {
  const { tokenizer: json, tokenizerConfig } = tokenizer.toJSON()
  await replaceFile(join(folder, 'tokenizer.json'), `${JSON.stringify(json)}\n`)
  await replaceFile(
    join(folder, 'tokenizer_config.json'),
    `${JSON.stringify(withoutPaths(tokenizerConfig), null, 2)}\n`,
  )
}

/** What makes a model from its config.json. `init` fills what a checkpoint brings, `head` what it may lack. */
export type ModelFactory<M extends HuggingFaceModel> = (config: JsonObject, init: Initializer, head: Initializer) => M

/**
 * Reads config.json and the weights of a folder.
 *
 * @param seed first weights of a head that the checkpoint lacks; public
 * @returns the model, and the names of the tensors that the checkpoint lacked or had for other classes
 * @throws DpMoeError MODEL_FORMAT for what is damaged, foreign or not offered, naming the setting or the tensor and both
 *   shapes; FILE_NOT_FOUND, FILE_ACCESS
 */
export async function loadModel<M extends HuggingFaceModel>(
  device: Device,
  folder: string,
  make: ModelFactory<M>,
  seed: number | string = 0,
): Promise<{ model: M; missing: string[] }> {
  const config = await readJsonObject(join(folder, configFile))
  await using checkpoint = await Checkpoint.open(folder)
  const parts = [new UnfilledWeights(device), new Initializer(device, seed)] as const
  try {
    const model = inFolder(folder, () => make(config, ...parts))
    return { model, missing: await loadWeights(model.tensorMap(), checkpoint, () => labelsOrTwo(config).length) }
  } catch (error) {
    for (const part of parts) part.discard()
    throw error
  }
}

/** Adds the file to an error about a configuration. */
function inFolder<T>(folder: string, body: () => T): T {
  try {
    return body()
  } catch (error) {
    if (!(error instanceof DpMoeError && error.code === 'MODEL_FORMAT')) throw error
    throw new DpMoeError('MODEL_FORMAT', `${join(folder, configFile)}: ${error.message}`, { cause: error })
  }
}
