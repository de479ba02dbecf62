import { join, resolve } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { Checkpoint, configFile, readJsonObject } from './hugging-face/checkpoint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import type { WeightOptions } from './hugging-face/save-weights.js'
import { certificateFile, copyCompanions, copyIfThere, requireFreeFolder, writeModelFolder } from './model-folder.js'
import { openModel } from './open-model.js'
import { type UpcycleOptions, upcycle } from './upcycle.js'

export interface ConvertOptions extends WeightOptions {
  /** Turns feed-forward parts of a dense BERT into mixtures of experts. */
  readonly upcycle?: Pick<UpcycleOptions, 'numExperts' | 'expertsPerToken' | 'layers'>
  /** Of the first weights of routers and of a head that the checkpoint lacks. Default 0. */
  readonly seed?: number | string
  /** Replaces a folder that holds a model and nothing else. */
  readonly overwrite?: boolean
  readonly signal?: AbortSignal
}

export interface ConvertResult {
  /** `model_type` of what was written. */
  readonly modelType: string
  /** Number of weights. */
  readonly parameters: number
  /** Tensors that the checkpoint lacks: a new head, with first weights from the seed. */
  readonly newTensors: readonly string[]
}

/**
 * Reads a model folder in the Hugging Face layout and writes it anew, with its tokenizer and certificate: in another type, in
 * other shards, or upcycled.
 *
 * Guarantee. `output` is what it was before, or the whole new model; when anything fails, nothing is left.
 *
 * @throws DpMoeError FILE_EXISTS where `output` holds anything, with `overwrite` anything but a model; MODEL_FORMAT;
 *   OutOfRangeError; DISK_FULL; ABORTED by `signal`
 */
export async function convertModel(
  device: Device,
  folder: string,
  output: string,
  options: ConvertOptions = {},
): Promise<ConvertResult> {
  const { dtype, maxShardBytes, overwrite = false, signal } = options
  if (maxShardBytes !== undefined && !(maxShardBytes >= 1)) {
    throw new OutOfRangeError('maxShardBytes', 'a number >= 1', maxShardBytes)
  }
  const target = resolve(output)
  const modelType = await readModelType(folder)
  if (options.upcycle && modelType !== 'bert' && modelType !== 'bert_moe') {
    const message = `${join(folder, configFile)}: only dense BERT models are upcycled, got model_type '${modelType}'`
    throw new DpMoeError('MODEL_FORMAT', message)
  }
  await requireFreeFolder(target, folder, overwrite)
  using model = await open(device, folder, options)
  const newTensors = await tensorsBeside(folder, model)
  signal?.throwIfAborted()
  await writeModelFolder(target, overwrite, async (temporary) => {
    await model.savePretrained(temporary, {
      ...(dtype && { dtype }),
      ...(maxShardBytes !== undefined && { maxShardBytes }),
    })
    await copyCompanions(folder, temporary)
    await copyIfThere(folder, temporary, certificateFile)
    signal?.throwIfAborted()
  })
  const parameters = model.parameters().reduce((sum, { size }) => sum + size, 0)
  return { modelType: await readModelType(target), parameters, newTensors }
}

async function readModelType(folder: string): Promise<string> {
  return String((await readJsonObject(join(folder, configFile))).model_type)
}

function open(
  device: Device,
  folder: string,
  { upcycle: wanted, seed = 0 }: ConvertOptions,
): Promise<HuggingFaceModel> {
  return wanted ? upcycle(device, folder, { ...wanted, seed }) : openModel(device, folder, { seed })
}

/** The tensors that a model has and its checkpoint may leave out and does. */
async function tensorsBeside(folder: string, model: HuggingFaceModel): Promise<string[]> {
  await using checkpoint = await Checkpoint.open(folder)
  const map = model.tensorMap()
  const present = new Set(Array.from(checkpoint.names(), (name) => map.resolve(name)))
  return [...map.tensors].flatMap(([name, { optional }]) => (optional && !present.has(name) ? [name] : []))
}
