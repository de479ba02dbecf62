import { DpMoeError } from '../errors.js'

/** A file of a repository on the hub. */
export interface HubFile {
  readonly path: string
  readonly size: number
  /** SHA-1 of the git blob: `blob <size>\0` and the content. Of the pointer where there is a `sha256`. */
  readonly gitHash: string | undefined
  /** SHA-256 of the content, for large files. */
  readonly sha256: string | undefined
}

/** Whether a path of a repository stays in its folder and can be a file's. */
export function isInside(path: string): boolean {
  const parts = path.split('/')
  return !/[\\\p{Cc}]/u.test(path) && parts.every((part) => part !== '' && part !== '.' && part !== '..')
}

/** What a model folder holds beside its weights. */
const SMALL_FILES = [
  'config.json',
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
]

export const WEIGHTS = 'model.safetensors'
export const INDEX = 'model.safetensors.index.json'

const SHARD = /^model-\d{5}-of-\d{5}\.safetensors$/
const PICKLES = /\.(bin|pt|pth|ckpt|pkl|pickle|msgpack|h5)$/

/**
 * The files of a repository that make a model folder: configuration, tokenizer and safetensors weights, nothing else.
 *
 * Guarantee. Only JSON and safetensors files are ever named. A pickle file can run any program when it is opened, so
 * a repository that has its weights in nothing else is refused.
 *
 * | repository | result |
 * |---|---|
 * | model.safetensors | it and the small files there are |
 * | model.safetensors.index.json with shards | the index, every shard of the top folder, the small files |
 * | both | the single file |
 * | weights in pickle files only | MODEL_FORMAT, naming one and the reason |
 * | no weights, or no config.json | MODEL_FORMAT |
 */
export function filesOfModel(name: string, files: readonly HubFile[]): HubFile[] {
  const has = (path: string) => files.some((file) => file.path === path)
  const pickle = files.find(({ path }) => PICKLES.test(path))
  if (!has(WEIGHTS) && !has(INDEX)) {
    const why = pickle
      ? `its weights are in ${pickle.path}, a format that can run any program when it is opened. Ask its owner for safetensors, or convert it in a place you can throw away`
      : `it has neither ${WEIGHTS} nor ${INDEX}. Name another model`
    throw new DpMoeError('MODEL_FORMAT', `${name} is not used: ${why}`)
  }
  if (!has('config.json')) throw new DpMoeError('MODEL_FORMAT', `${name} is not used: it has no config.json`)
  const isWeights = (path: string) => (has(WEIGHTS) ? path === WEIGHTS : path === INDEX || SHARD.test(path))
  return files.filter(({ path }) => SMALL_FILES.includes(path) || isWeights(path))
}
