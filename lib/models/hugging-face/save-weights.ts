import { mkdir, readdir, rm } from 'node:fs/promises'
import { join } from 'node:path'
import { roundToBfloat16 } from '../../engine/bfloat16.js'
import { DpMoeError } from '../../errors.js'
import { bytesOf, replaceFile, withFileErrors } from '../../files.js'
import { roundToFloat16 } from '../half-precision.js'
import { type TensorData, type TensorSource, writeSafetensors } from '../safetensors.js'
import { byteCount } from '../safetensors-header.js'
import { indexFile, weightsFile } from './checkpoint.js'
import type { TensorMap, TensorPlace } from './tensor-map.js'

/** What weights are written as. */
export type WeightType = 'F32' | 'BF16' | 'F16'

export interface WeightOptions {
  /** Default F32; the others round. */
  readonly dtype?: WeightType
  /** Above it the weights are written in several files with an index. Default 5e9. */
  readonly maxShardBytes?: number
}

/**
 * Writes a model's weights as model.safetensors, or in shards with model.safetensors.index.json, one tensor per expert. Each
 * file is written atomically, one tensor at a time.
 */
export async function saveWeights(folder: string, map: TensorMap, options: WeightOptions = {}): Promise<void> {
  const { dtype = 'F32', maxShardBytes = 5e9 } = options
  await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
  const shards = divide(map, dtype, maxShardBytes)
  const fileOf = new Map<string, string>()
  let total = 0
  for (const [index, shard] of shards.entries()) {
    const file = shards.length === 1 ? weightsFile : shardName(index, shards.length)
    for (const [name, { shape }] of shard) {
      fileOf.set(name, file)
      total += byteCount(dtype, shape)
    }
    await writeSafetensors(join(folder, file), shard)
  }
  if (shards.length > 1) {
    const content = { metadata: { total_size: total }, weight_map: Object.fromEntries(fileOf) }
    await replaceFile(join(folder, indexFile), `${JSON.stringify(content, null, 2)}\n`)
  }
  await removeOthers(folder, new Set([...fileOf.values(), ...(shards.length > 1 ? [indexFile] : [])]))
}

/** Removes what an earlier save in other files left: it would be read in place of the new weights. */
async function removeOthers(folder: string, written: ReadonlySet<string>): Promise<void> {
  const weights = /^model(-\d{5}-of-\d{5})?\.safetensors(\.index\.json)?$/
  for (const name of await withFileErrors('read', folder, () => readdir(folder))) {
    const path = join(folder, name)
    if (weights.test(name) && !written.has(name)) await withFileErrors('remove', path, () => rm(path))
  }
}

/** The tensors in order, in shards of at most `maxBytes` (one larger tensor has a shard of its own). */
function divide(map: TensorMap, dtype: WeightType, maxBytes: number): Map<string, TensorSource>[] {
  const shards: Map<string, TensorSource>[] = []
  let bytes = Number.POSITIVE_INFINITY
  for (const [name, place] of map.saved()) {
    const size = byteCount(dtype, place.shape)
    if (bytes + size > maxBytes) {
      shards.push(new Map())
      bytes = 0
    }
    bytes += size
    shards.at(-1)!.set(name, { dtype, shape: place.shape, data: () => valuesOf(place, dtype) })
  }
  return shards
}

/** The least number that is infinite as a weight type, to nearest. */
const infiniteFrom = { F32: Number.POSITIVE_INFINITY, BF16: 2 ** 128 - 2 ** 119, F16: 65520 }

/**
 * The values of a tensor as they are written.
 *
 * @throws DpMoeError INVALID_ARGUMENT for one that is not finite in that type: no model with it could be read again
 */
export async function valuesOf(
  { parameter, shape, offset }: Omit<TensorPlace, 'optional'>,
  dtype: WeightType,
): Promise<TensorData> {
  const slice = parameter.tensor.slice(
    offset,
    shape.reduce((product, extent) => product * extent, 1),
  )
  const values = (await slice.data()) as Float32Array
  slice[Symbol.dispose]()
  const lost = firstFrom(values, infiniteFrom[dtype])
  if (lost !== undefined) {
    const remedy = Number.isFinite(lost) ? 'Write the weights in another type' : 'Take another model'
    throw new DpMoeError('INVALID_ARGUMENT', `${parameter.name}: ${lost} is not finite as ${dtype}. ${remedy}`)
  }
  if (dtype === 'F32') return values
  return bytesOf(dtype === 'BF16' ? roundToBfloat16(values) : roundToFloat16(values))
}

/** The first value that is NaN or whose magnitude is not below a bound; a loop, since a model has billions. */
function firstFrom(values: Float32Array, bound: number): number | undefined {
  for (let i = 0; i < values.length; i++) if (!(Math.abs(values[i]!) < bound)) return values[i]
  return undefined
}

function shardName(index: number, count: number): string {
  const five = (number: number) => String(number).padStart(5, '0')
  return `model-${five(index + 1)}-of-${five(count)}.safetensors`
}
