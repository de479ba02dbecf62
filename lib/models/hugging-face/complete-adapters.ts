import { DpMoeError } from '../../errors.js'
import type { SafetensorsFile } from '../safetensors.js'
import { baseFingerprintKey, type ReadAdapterConfig } from './adapter-config.js'
import type { TensorMap } from './tensor-map.js'

/** The layer of a tensor: its name without what it is there. */
export const layerOf = (tensor: string) => tensor.replace(/\.(weight|bias)$/, '')

/** The names in the adapters' file of what changes a tensor of the model. */
export interface TensorChange {
  a?: string
  b?: string
  /** In place of the tensor; for one that is tied, every copy. */
  whole?: string[]
}

/**
 * Refuses adapters of which some are missing. dp-moe (which writes the base's fingerprint) names every layer that it changed, and all of
 * these must be there. PEFT may name kinds of layers that a model lacks or that were adapted in part: of each kind that the model has,
 * something must be there.
 */
export function requireComplete(
  file: SafetensorsFile,
  map: TensorMap,
  { targets, whole }: ReadAdapterConfig,
  changes: ReadonlyMap<string, TensorChange>,
): void {
  const isOurs = file.metadata[baseFingerprintKey] !== undefined
  const damaged = (what: string) =>
    new DpMoeError('MODEL_FORMAT', `${file.path} ${what}. Restore it from where the adapters came from`)
  const isAdapted = (tensor: string) => changes.get(tensor)?.a !== undefined
  const isWhole = (tensor: string) => changes.get(tensor)?.whole !== undefined
  if (![...changes.keys()].some(isAdapted)) throw damaged('holds no adapters')
  const layers = new Map<string, string[]>()
  for (const tensor of map.tensors.keys()) {
    const layer = layerOf(tensor)
    layers.set(layer, [...(layers.get(layer) ?? []), tensor])
  }
  const check = (setting: string, name: string, tensors: readonly string[], isThere: (tensor: string) => boolean) => {
    const missing = tensors.filter((tensor) => !isThere(tensor))
    const isLacking = isOurs ? missing.length > 0 : missing.length === tensors.length && tensors.length > 0
    if (isLacking) {
      const what = setting === 'target_modules' ? `adapter of ${missing[0]}` : missing[0]
      throw damaged(`is not whole: ${setting} of adapter_config.json has '${name}', and there is no ${what}`)
    }
    if (isOurs && tensors.length === 0) {
      throw damaged(`is of another model: ${setting} of adapter_config.json has '${name}', and there is no such layer`)
    }
  }
  for (const name of targets) {
    const weights = tensorsOf(layers, name).filter((tensor) => tensor.endsWith('.weight'))
    check('target_modules', name, weights, isAdapted)
  }
  for (const name of whole) check('modules_to_save', name, tensorsOf(layers, name), isWhole)
}

/** The tensors of the layers that a name in adapter_config.json means: their whole name, or the last parts of it. */
function tensorsOf(layers: ReadonlyMap<string, string[]>, name: string): string[] {
  const own = layers.get(name)
  if (own) return own
  const end = `.${name}`
  return [...layers].flatMap(([layer, tensors]) => (layer.endsWith(end) ? tensors : []))
}
