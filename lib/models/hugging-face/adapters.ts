import { mkdir } from 'node:fs/promises'
import { join } from 'node:path'
import { LoadEstimate } from '../../autograd/load-balance.js'
import type { Parameter } from '../../autograd/parameter.js'
import type { HuggingFaceTokenizer } from '../../data/hugging-face-tokenizer.js'
import { DpMoeError } from '../../errors.js'
import { replaceFile, withFileErrors } from '../../files.js'
import type { LowRankAdapter } from '../../nn/low-rank-adapter.js'
import { adaptersOf } from '../../nn/trainable.js'
import { publicBaseName } from '../adapter-base.js'
import { type TensorSource, writeSafetensors } from '../safetensors.js'
import {
  type AdapterConfig,
  adapterPrefix,
  adapterSettings,
  adapterWeightsFile,
  baseFingerprintKey,
} from './adapter-config.js'
import { adapterConfigFile, configFile } from './checkpoint.js'
import { layerOf } from './complete-adapters.js'
import { withoutPaths } from './config.js'
import { type HuggingFaceModel, saveTokenizer } from './hugging-face-model.js'
import { valuesOf } from './save-weights.js'
import type { TensorMap, TensorPlace } from './tensor-map.js'

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
    tensors.set(`${adapterPrefix}${name}`, { dtype: 'F32', shape, data: () => valuesOf(place, 'F32') })
  }
  const targets: string[] = []
  const held = new Set<Parameter>()
  const whole = layersKeptWhole(map, adapters)
  for (const [name, place] of map.tensors) {
    const adapter = adapters.get(place.parameter)
    const layer = layerOf(name)
    if (adapter) {
      const expert = place.offset / elements(place.shape)
      for (const [letter, parameter] of [['A', adapter.a] as const, ['B', adapter.b] as const]) {
        const shape = parameter.shape.slice(-2)
        add(`${layer}.lora_${letter}.weight`, { parameter, shape, offset: expert * elements(shape) })
        held.add(parameter)
      }
      targets.push(layer)
    } else if (whole.has(layer)) {
      add(name, place)
      held.add(place.parameter)
    }
  }
  const lost = model.trainableParameters().find((one) => !held.has(one) && !(one instanceof LoadEstimate))
  if (lost) throw new DpMoeError('INVALID_ARGUMENT', `${lost.name} trains and has no place among adapters`)
  await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
  const metadata = { format: 'pt', [baseFingerprintKey]: base.fingerprint }
  await writeSafetensors(join(folder, adapterWeightsFile), tensors, metadata)
  const content = withoutPaths(model.configJson())
  const settings = adapterSettings(config, { architectures: content.architectures, targets, whole: [...whole] })
  await replaceFile(join(folder, configFile), `${JSON.stringify(content, null, 2)}\n`)
  await replaceFile(join(folder, adapterConfigFile), `${JSON.stringify(settings, null, 2)}\n`)
  if (tokenizer) await saveTokenizer(folder, tokenizer)
}

/**
 * The layers of which anything trains beside adapters: all of such a layer is written, as PEFT does.
 *
 * @throws DpMoeError INVALID_ARGUMENT for one that has an adapter as well
 */
function layersKeptWhole(map: TensorMap, adapters: ReadonlyMap<Parameter, LowRankAdapter>): Set<string> {
  const whole = new Map<string, Parameter>()
  for (const [name, { parameter }] of map.tensors) {
    if (parameter.trainable && !adapters.has(parameter)) whole.set(layerOf(name), parameter)
  }
  for (const [name, { parameter }] of map.tensors) {
    const trained = adapters.has(parameter) ? whole.get(layerOf(name)) : undefined
    if (trained)
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `${trained.name} trains beside an adapter, and adapters cannot hold both`,
      )
  }
  return new Set(whole.keys())
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

function elements(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1)
}
