import { join } from 'node:path'
import { Parameter } from '../../autograd/parameter.js'
import { DpMoeError } from '../../errors.js'
import { UnfilledWeights } from '../../nn/initializer.js'
import { LowRankAdapter } from '../../nn/low-rank-adapter.js'
import { SafetensorsFile } from '../safetensors.js'
import { adapterWeightsFile, type ReadAdapterConfig } from './adapter-config.js'
import { requireComplete, type TensorChange, withoutPrefix } from './complete-adapters.js'
import type { HuggingFaceModel } from './hugging-face-model.js'
import type { TensorMap, TensorPlace } from './tensor-map.js'

/**
 * Adds adapters to the weights of the model that they belong to, in float32, and replaces the tensors that were kept whole. All names
 * and shapes are checked before anything is changed.
 *
 * @returns the number of matrices that an adapter changed
 * @throws DpMoeError MODEL_FORMAT for a tensor without a place in the model, of another shape, or without its other half; for two changes
 *   of one tensor; where there is no adapter, or one is missing that adapter_config.json names; where a sum is not finite
 */
export async function mergeAdapterFile(
  folder: string,
  model: HuggingFaceModel,
  config: ReadAdapterConfig,
): Promise<number> {
  await using file = await SafetensorsFile.open(join(folder, adapterWeightsFile))
  const map = model.tensorMap()
  const changes = changesIn(file, map, config)
  requireComplete(file, map, config, changes)
  let merged = 0
  for (const [tensor, { a, b, whole }] of changes) {
    const place = map.tensors.get(tensor)!
    if (whole) {
      await writeWhole(file, whole, place)
    } else {
      await addProduct(file, { a: a!, b: b! }, place, config)
      merged++
    }
  }
  return merged
}

/** What each tensor of the model is changed by. */
function changesIn(
  file: SafetensorsFile,
  map: TensorMap,
  { rank }: Pick<ReadAdapterConfig, 'rank'>,
): Map<string, TensorChange> {
  const changes = new Map<string, TensorChange>()
  for (const [name, { shape }] of file.tensors) {
    const plain = withoutPrefix(name)
    const [, layer, letter] = /^(.+)\.lora_([AB])\.weight$/.exec(plain) ?? []
    const tensor = map.resolve(layer === undefined ? plain : `${layer}.weight`) ?? ''
    const place = map.tensors.get(tensor)
    if (!place) {
      throw damaged(file, `${name} has no place in the model; is it the one that was adapted?`)
    }
    const change = changes.get(tensor) ?? {}
    changes.set(tensor, change)
    const [rows, columns] = place.shape as [number, number]
    if (layer === undefined) {
      requireShape(file, name, shape, place.shape)
      requireFree(file, tensor, name, change.a ?? change.b ?? (map.isTied(tensor) ? undefined : change.whole?.[0]))
      change.whole = [...(change.whole ?? []), name]
    } else if (letter === 'A') {
      requireShape(file, name, shape, [rank, columns])
      requireFree(file, tensor, name, change.whole?.[0] ?? change.a)
      change.a = name
    } else {
      requireShape(file, name, shape, [rows, rank])
      requireFree(file, tensor, name, change.whole?.[0] ?? change.b)
      change.b = name
    }
  }
  for (const { a, b, whole } of changes.values()) {
    const half = whole ? undefined : a === undefined ? b : b === undefined ? a : undefined
    if (half !== undefined) throw damaged(file, `${half} is there without ${otherHalf(half)}`)
  }
  return changes
}

const otherHalf = (name: string) => name.replace(/[AB](?=\.weight$)/, (letter) => (letter === 'A' ? 'B' : 'A'))

function requireFree(file: SafetensorsFile, tensor: string, name: string, other: string | undefined): void {
  if (other === undefined) return
  throw damaged(file, `both ${other} and ${name} change ${tensor}. Take other adapters`)
}

function requireShape(file: SafetensorsFile, name: string, got: readonly number[], expected: readonly number[]): void {
  if (`${got}` === `${expected}`) return
  throw damaged(file, `expected ${name} [${expected.join(', ')}], got [${got.join(', ')}]`)
}

async function writeWhole(file: SafetensorsFile, [first, ...copies]: string[], place: TensorPlace): Promise<void> {
  const values = await file.readWeights(first!)
  place.parameter.tensor.write(values, place.offset)
  for (const copy of copies) {
    const others = await file.readWeights(copy)
    if (others.every((value, i) => Object.is(value, values[i]))) continue
    throw damaged(file, `${copy} differs from ${first}, and config.json ties the two`)
  }
}

/** Adds (alpha / rank) B A to a matrix. */
async function addProduct(
  file: SafetensorsFile,
  { a, b }: { readonly a: string; readonly b: string },
  { parameter, shape, offset }: TensorPlace,
  { rank, alpha }: ReadAdapterConfig,
): Promise<void> {
  using adapter = new LowRankAdapter(new UnfilledWeights(parameter.device), shape, { rank, alpha })
  adapter.a.tensor.write(await file.readWeights(a))
  adapter.b.tensor.write(await file.readWeights(b))
  const size = shape.reduce((product, extent) => product * extent, 1)
  using matrix = parameter.tensor.slice(offset, size)
  adapter.mergeInto(new Parameter(matrix))
  if (((await matrix.data()) as Float32Array).every(Number.isFinite)) return
  const what = `${a}, with its other half and lora_alpha ${alpha}, makes weights that are not finite`
  throw damaged(file, `${what}. Take other adapters`)
}

function damaged({ path }: SafetensorsFile, message: string): DpMoeError {
  return new DpMoeError('MODEL_FORMAT', `${path}: ${message}`)
}
