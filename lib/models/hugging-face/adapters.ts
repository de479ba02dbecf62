import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { LoadEstimate } from '../../autograd/load-balance.js'
import { Parameter } from '../../autograd/parameter.js'
import type { HuggingFaceTokenizer } from '../../data/hugging-face-tokenizer.js'
import { DpMoeError } from '../../errors.js'
import { replaceFile, withFileErrors } from '../../files.js'
import { UnfilledWeights } from '../../nn/initializer.js'
import { LowRankAdapter } from '../../nn/low-rank-adapter.js'
import { adaptersOf } from '../../nn/trainable.js'
import { publicBaseName } from '../adapter-base.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from '../safetensors.js'
import { type AdapterConfig, adapterSettings, adapterWeightsFile, baseFingerprintKey } from './adapter-config.js'
import { adapterConfigFile, configFile } from './checkpoint.js'
import { type HuggingFaceModel, saveTokenizer } from './hugging-face-model.js'
import { valuesOf } from './save-weights.js'
import type { TensorMap, TensorPlace } from './tensor-map.js'

/** What PEFT puts before the names of a model's tensors. */
const PREFIX = 'base_model.model.'

/** What adapters were trained on. */
export interface AdapterBase {
  /** The model that the adapters change: owner/name on the hub, or a folder, of which only the last part is written. */
  readonly name: string
  /** SHA-256 of its configuration and weights (`modelFingerprint`). */
  readonly fingerprint: string
}

/**
 * Writes the adapters of a model, and what else of it trains, in the layout of PEFT: adapter_config.json and
 * adapter_model.safetensors; config.json beside them has the model's settings and labels.
 *
 * Guarantee. All that training may have changed is written: a trainable parameter that the layout cannot hold is refused.
 *
 * @throws DpMoeError INVALID_ARGUMENT where there are no adapters, or of several ranks or scales; DISK_FULL, FILE_ACCESS
 */
export async function saveAdapters(
  folder: string,
  model: HuggingFaceModel,
  base: AdapterBase,
  tokenizer?: HuggingFaceTokenizer,
): Promise<void> {
  const adapters = adaptersOf(model)
  const config = commonConfig([...adapters.values()], publicBaseName(base.name))
  const map = model.tensorMap()
  const tensors = new Map<string, TensorSource>()
  const add = (name: string, place: Omit<TensorPlace, 'optional'>) => {
    const { shape } = place
    tensors.set(`${PREFIX}${name}`, { dtype: 'F32', shape, data: () => valuesOf(place, 'F32') })
  }
  const targets: string[] = []
  const whole: string[] = []
  const held = new Set<Parameter>()
  for (const [name, place] of map.tensors) {
    const adapter = adapters.get(place.parameter)
    if (adapter) {
      const layer = layerOf(name)
      const expert = place.offset / elements(place.shape)
      for (const [letter, parameter] of [['A', adapter.a] as const, ['B', adapter.b] as const]) {
        const shape = parameter.shape.slice(-2)
        add(`${layer}.lora_${letter}.weight`, { parameter, shape, offset: expert * elements(shape) })
        held.add(parameter)
      }
      targets.push(layer)
    } else if (place.parameter.trainable) {
      add(name, place)
      held.add(place.parameter)
      if (!whole.includes(layerOf(name))) whole.push(layerOf(name))
    }
  }
  const lost = model.trainableParameters().find((one) => !held.has(one) && !(one instanceof LoadEstimate))
  if (lost) throw new DpMoeError('INVALID_ARGUMENT', `${lost.name} trains and has no place among adapters`)
  await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
  const metadata = { format: 'pt', [baseFingerprintKey]: base.fingerprint }
  await writeSafetensors(join(folder, adapterWeightsFile), tensors, metadata)
  const content = model.configJson()
  const settings = adapterSettings(config, { architectures: content.architectures, targets, whole })
  await replaceFile(join(folder, configFile), `${JSON.stringify(content, null, 2)}\n`)
  await replaceFile(join(folder, adapterConfigFile), `${JSON.stringify(settings, null, 2)}\n`)
  if (tokenizer) await saveTokenizer(folder, tokenizer)
}

function commonConfig(adapters: readonly LowRankAdapter[], base: string): AdapterConfig {
  const first = adapters[0]
  if (!first) throw new DpMoeError('INVALID_ARGUMENT', 'Expected a model with adapters, got one without')
  const rankOf = ({ a }: LowRankAdapter) => a.shape.at(-2)!
  const rank = rankOf(first)
  if (adapters.some((one) => rankOf(one) !== rank || one.scale !== first.scale)) {
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected adapters of one rank and scale, got several')
  }
  return { base, rank, alpha: first.scale * rank }
}

/**
 * Adds adapters to the weights of the model that they belong to, in float32, and replaces the tensors that were kept whole.
 *
 * @returns the number of matrices that an adapter changed
 * @throws DpMoeError MODEL_FORMAT for a tensor without a place in the model, of another shape, or without its other half; where a sum is
 *   not finite
 */
export async function mergeAdapterFile(
  folder: string,
  model: HuggingFaceModel,
  { rank, alpha }: Pick<AdapterConfig, 'rank' | 'alpha'>,
): Promise<number> {
  await using file = await SafetensorsFile.open(join(folder, adapterWeightsFile))
  const map = model.tensorMap()
  let merged = 0
  for (const [name, { shape }] of file.tensors) {
    const plain = name.startsWith(PREFIX) ? name.slice(PREFIX.length) : name
    const [, layer, letter] = /^(.+)\.lora_([AB])\.weight$/.exec(plain) ?? []
    if (layer === undefined) {
      const place = placeOf(map, plain, name, file)
      requireShape(name, shape, place.shape, file)
      place.parameter.tensor.write(await file.readWeights(name), place.offset)
      continue
    }
    const other = name.replace(/[AB]\.weight$/, letter === 'A' ? 'B.weight' : 'A.weight')
    const half = file.tensors.get(other)
    if (!half) throw new DpMoeError('MODEL_FORMAT', `${file.path}: ${name} is there without ${other}`)
    const place = placeOf(map, `${layer}.weight`, name, file)
    const [rows, columns] = place.shape as [number, number]
    requireShape(name, shape, letter === 'A' ? [rank, columns] : [rows, rank], file)
    if (letter === 'B') continue
    requireShape(other, half.shape, [rows, rank], file)
    if (!(await addProduct(place, { rank, alpha }, await file.readWeights(name), await file.readWeights(other)))) {
      const what = `${name}, with its other half and lora_alpha ${alpha}, makes weights that are not finite`
      throw new DpMoeError('MODEL_FORMAT', `${file.path}: ${what}. Take other adapters`)
    }
    merged++
  }
  return merged
}

/** Adds (alpha / rank) B A to a matrix; whether all of it is finite. */
async function addProduct(
  { parameter, shape, offset }: TensorPlace,
  config: { rank: number; alpha: number },
  a: Float32Array,
  b: Float32Array,
): Promise<boolean> {
  const adapter = new LowRankAdapter(new UnfilledWeights(parameter.device), shape, config)
  adapter.a.tensor.write(a)
  adapter.b.tensor.write(b)
  const matrix = parameter.tensor.slice(offset, elements(shape))
  adapter.mergeInto(new Parameter(matrix))
  const sum = matrix.data()
  matrix[Symbol.dispose]()
  adapter[Symbol.dispose]()
  return ((await sum) as Float32Array).every(Number.isFinite)
}

function placeOf(map: TensorMap, tensor: string, name: string, { path }: SafetensorsFile): TensorPlace {
  const place = map.tensors.get(map.resolve(tensor) ?? '')
  if (place) return place
  throw new DpMoeError('MODEL_FORMAT', `${path}: ${name} has no place in the model; is it the one that was adapted?`)
}

function requireShape(
  name: string,
  got: readonly number[],
  expected: readonly number[],
  { path }: SafetensorsFile,
): void {
  if (`${got}` === `${expected}`) return
  throw new DpMoeError('MODEL_FORMAT', `${path}: expected ${name} [${expected.join(', ')}], got [${got.join(', ')}]`)
}

const layerOf = (tensor: string) => tensor.replace(/\.(weight|bias)$/, '')

function elements(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1)
}
