import { readFile, stat } from 'node:fs/promises'
import { basename, join } from 'node:path'
import { z } from 'zod'
import { DpMoeError } from '../../errors.js'
import { withFileErrors } from '../../files.js'
import { SafetensorsFile, type TensorEntry } from '../safetensors.js'

export const weightsFile = 'model.safetensors'
export const indexFile = 'model.safetensors.index.json'
export const configFile = 'config.json'
/** Present where a folder holds LoRA adapters in the layout of PEFT. */
export const adapterConfigFile = 'adapter_config.json'

export type JsonObject = Record<string, unknown>

/** Reads a JSON object from a file of a model folder. */
export async function readJsonObject(path: string): Promise<JsonObject> {
  const text = await withFileErrors('read', path, () => readFile(path, 'utf8'))
  try {
    const value: unknown = JSON.parse(text)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  } catch (cause) {
    throw new DpMoeError('MODEL_FORMAT', `${path} is not JSON. Restore it from where the model came from`, { cause })
  }
  throw new DpMoeError('MODEL_FORMAT', `${path} is not a JSON object. Restore it from where the model came from`)
}

export async function exists(path: string): Promise<boolean> {
  return stat(path).then(
    () => true,
    () => false,
  )
}

const indexSchema = z.object({ weight_map: z.record(z.string(), z.string()) })

/** The weights of a model folder: one safetensors file, or several with an index. */
export class Checkpoint implements AsyncDisposable {
  readonly folder: string
  readonly #files: readonly SafetensorsFile[]
  readonly #places: ReadonlyMap<string, SafetensorsFile>

  private constructor(folder: string, files: readonly SafetensorsFile[], places: Map<string, SafetensorsFile>) {
    this.folder = folder
    this.#files = files
    this.#places = places
  }

  /**
   * @throws DpMoeError MODEL_FORMAT where the files contradict each other or the index, FILE_NOT_FOUND
   */
  static async open(folder: string): Promise<Checkpoint> {
    const index = join(folder, indexFile)
    const single = await exists(join(folder, weightsFile))
    const sharded = !single && (await exists(index))
    if (!single && !sharded && (await exists(join(folder, 'pytorch_model.bin')))) {
      throw new DpMoeError(
        'MODEL_FORMAT',
        `${folder} holds pytorch_model.bin, which can run code when it is read; expected ${weightsFile}. Convert it with transformers: ` +
          'from_pretrained(folder).save_pretrained(folder, safe_serialization=True)',
      )
    }
    if (!single && !sharded && (await exists(join(folder, adapterConfigFile)))) {
      throw new DpMoeError(
        'MODEL_FORMAT',
        `${folder} holds adapters and no whole model. Make one with dp-moe merge, and open that`,
      )
    }
    const names = sharded ? await shardNames(index) : undefined
    const files: SafetensorsFile[] = []
    try {
      const places = new Map<string, SafetensorsFile>()
      for (const name of names ? new Set(names.values()) : [weightsFile]) {
        const file = await SafetensorsFile.open(join(folder, name))
        files.push(file)
        for (const tensor of file.tensors.keys()) {
          if (names && names.get(tensor) !== name) {
            throw new DpMoeError('MODEL_FORMAT', `${index}: ${tensor} is in ${name}, where the index has it elsewhere`)
          }
          places.set(tensor, file)
        }
      }
      for (const [tensor, name] of names ?? []) {
        if (!places.has(tensor)) throw new DpMoeError('MODEL_FORMAT', `${index}: ${name} holds no tensor ${tensor}`)
      }
      return new Checkpoint(folder, files, places)
    } catch (error) {
      for (const file of files) await file.close()
      throw error
    }
  }

  /** Names of all tensors, file by file in the order of the data. */
  names(): Iterable<string> {
    return this.#places.keys()
  }

  has(name: string): boolean {
    return this.#places.has(name)
  }

  entry(name: string): TensorEntry {
    return this.#file(name).tensors.get(name)!
  }

  /** A tensor's values, F32, BF16 or F16 on disk, in memory of their own or in what is given. */
  readWeights(name: string, memory?: ArrayBuffer): Promise<Float32Array> {
    return this.#file(name).readWeights(name, memory)
  }

  async [Symbol.asyncDispose](): Promise<void> {
    for (const file of this.#files) await file.close()
  }

  #file(name: string): SafetensorsFile {
    const file = this.#places.get(name)
    if (!file) throw new DpMoeError('MODEL_FORMAT', `${this.folder} holds no tensor ${name}`)
    return file
  }
}

/** The file of each tensor. A file's name must be one of the folder itself. */
async function shardNames(path: string): Promise<Map<string, string>> {
  const parsed = indexSchema.safeParse(await readJsonObject(path))
  if (!parsed.success) throw new DpMoeError('MODEL_FORMAT', `${path}: expected a weight_map from tensors to files`)
  const names = new Map(Object.entries(parsed.data.weight_map))
  for (const name of names.values()) {
    if (name !== basename(name) || !name.endsWith('.safetensors')) {
      throw new DpMoeError('MODEL_FORMAT', `${path}: expected safetensors files of this folder, got ${name}`)
    }
  }
  return names
}
