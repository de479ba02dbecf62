import { mkdir, readdir, readFile, realpath, rmdir } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { replaceFile, systemErrorCode, withFileErrors, writeFolderAtomically } from '../files.js'
import { Checkpoint, configFile, exists, indexFile, readJsonObject } from './hugging-face/checkpoint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import type { WeightOptions } from './hugging-face/save-weights.js'
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

/** What lies beside the weights and is copied as it is. */
const companions = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'spiece.model',
  'tokenizer.model',
]

/**
 * Reads a model folder in the Hugging Face layout and writes it anew, with its tokenizer: in another type, in other shards,
 * or upcycled.
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
  await requireFree(target, folder, overwrite)
  using model = await open(device, folder, options)
  const newTensors = await tensorsBeside(folder, model)
  signal?.throwIfAborted()
  const madeFirst = await withFileErrors('create', target, () => mkdir(dirname(target), { recursive: true }))
  const write = async (temporary: string) => {
    await model.savePretrained(temporary, {
      ...(dtype && { dtype }),
      ...(maxShardBytes !== undefined && { maxShardBytes }),
    })
    for (const name of companions) await copyIfThere(folder, temporary, name)
    signal?.throwIfAborted()
  }
  try {
    await writeFolderAtomically(target, write, { replace: overwrite })
  } catch (error) {
    if (madeFirst !== undefined) await removeEmptyFolders(dirname(target), madeFirst)
    throw error
  }
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

async function copyIfThere(from: string, to: string, name: string): Promise<void> {
  const source = join(from, name)
  if (!(await exists(source))) return
  await replaceFile(join(to, name), await withFileErrors('read', source, () => readFile(source)))
}

/** Removes the folders from `last` up to `first`, as far as they are empty. */
async function removeEmptyFolders(last: string, first: string): Promise<void> {
  for (let folder = last; folder.startsWith(first); folder = dirname(folder)) {
    const removed = await rmdir(folder).then(
      () => true,
      () => false,
    )
    if (!removed) return
  }
}

/** Refuses a folder that holds what would be lost. */
async function requireFree(target: string, source: string, overwrite: boolean): Promise<void> {
  const names = await namesIn(target)
  if (names.length === 0) return
  if (!overwrite) {
    throw new DpMoeError('FILE_EXISTS', `${target} is not empty. Choose another folder, or --overwrite the model in it`)
  }
  const isOfModel = (name: string) =>
    [configFile, indexFile, ...companions].includes(name) || name.endsWith('.safetensors')
  const foreign = names.find((name) => !isOfModel(name))
  if (foreign !== undefined || !names.includes(configFile)) {
    const what = foreign === undefined ? `no ${configFile}` : `'${foreign}'`
    throw new DpMoeError(
      'FILE_EXISTS',
      `${target} holds ${what}, and only a model and nothing else is overwritten. Choose another folder`,
    )
  }

  if ((await realpath(target)) === (await realpath(source))) {
    throw new DpMoeError('FILE_EXISTS', `${target} is the model that is converted. Choose another folder`)
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await withFileErrors('create', folder, () => readdir(folder))
  } catch (error) {
    if (error instanceof DpMoeError && systemErrorCode(error.cause) === 'ENOENT') return []
    throw error
  }
}
