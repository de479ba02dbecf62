import { DpMoeError } from '../../errors.js'
import type { SafetensorsFile } from '../safetensors.js'
import { adapterPrefix, baseFingerprintKey, type ReadAdapterConfig } from './adapter-config.js'
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
 * Refuses adapters of which some are missing, or are there though adapter_config.json says that there are none (PEFT would pass over
 * them). dp-moe (which writes the base's fingerprint) names every layer that it changed, and all of these must be there. PEFT may name
 * kinds of layers that a model lacks or that were adapted in part: of each kind that the model has (in each layer of
 * layers_to_transform, where that is given), something must be there.
 */
export function requireComplete(
  file: SafetensorsFile,
  map: TensorMap,
  config: ReadAdapterConfig,
  changes: ReadonlyMap<string, TensorChange>,
): void {
  const { targets, whole } = config
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
  const settingAgainst = settingsAgainst(config)
  for (const { a } of changes.values()) {
    const setting = a === undefined ? undefined : settingAgainst(moduleOf(a))
    if (setting !== undefined) throw damaged(`holds ${a}, which ${setting} of adapter_config.json leaves out`)
  }
  for (const name of new Set(targets)) {
    const weights = tensorsOf(layers, name).filter((tensor) => tensor.endsWith('.weight'))
    const named = weights.filter((tensor) => settingAgainst(layerOf(tensor)) === undefined && !isWhole(tensor))
    const byNumber = config.layers.length > 0 && !layers.has(name)
    const kinds = new Map<number | undefined, string[]>(byNumber ? [] : [[undefined, named]])
    for (const tensor of byNumber ? named : []) {
      const number = layerNumber(layerOf(tensor), config)
      kinds.set(number, [...(kinds.get(number) ?? []), tensor])
    }
    for (const kind of kinds.values()) check('target_modules', name, kind, isAdapted)
  }
  for (const name of whole) check('modules_to_save', name, tensorsOf(layers, name), isWhole)
}

/** A layer as the adapters' file names it. */
const moduleOf = (tensor: string) => withoutPrefix(tensor).replace(/\.lora_[AB]\.weight$/, '')

/** A name in the adapters' file as the model has it. */
export const withoutPrefix = (name: string) =>
  name.startsWith(adapterPrefix) ? name.slice(adapterPrefix.length) : name

/** The setting by which PEFT gives a layer no adapter, if any. */
function settingsAgainst(config: ReadAdapterConfig): (layer: string) => string | undefined {
  const [targets, excluded, layers] = [new Set(config.targets), new Set(config.excluded), new Set(config.layers)]
  return (layer) => {
    const parts = layer.split('.')
    const isNamed = (names: ReadonlySet<string>) => parts.some((_, from) => names.has(parts.slice(from).join('.')))
    if (isNamed(excluded)) return 'exclude_modules'
    // A pattern, which is not read.
    if (targets.size === 0) return undefined
    if (!isNamed(targets)) return 'target_modules'
    if (layers.size === 0 || targets.has(layer)) return undefined
    return layers.has(layerNumber(layer, config) ?? -1) ? undefined : 'layers_to_transform'
  }
}

/**
 * The number of a layer in the name of one of its parts, where PEFT looks for it: the last one, or the last one after the first of the
 * stated parts that has one.
 */
function layerNumber(layer: string, { beforeNumber }: ReadAdapterConfig): number | undefined {
  const parts = layer.split('.')
  if (beforeNumber.length === 0) return lastNumber(parts, () => true)
  for (const part of beforeNumber) {
    const number = lastNumber(parts, (before) => before === part || before.endsWith(`.${part}`))
    if (number !== undefined) return number
  }
  return undefined
}

/** The last number among the parts of a name that is neither its end nor too near to its beginning, after what may stand before it. */
function lastNumber(parts: readonly string[], isAfter: (before: string) => boolean): number | undefined {
  const at = parts.findLastIndex(
    (part, i) => i > 1 && i < parts.length - 1 && /^\d+$/.test(part) && isAfter(parts.slice(0, i).join('.')),
  )
  return at < 0 ? undefined : Number(parts[at])
}

/** The tensors of the layers that a name in adapter_config.json means: their whole name, or the last parts of it. */
function tensorsOf(layers: ReadonlyMap<string, string[]>, name: string): string[] {
  const own = layers.get(name)
  if (own) return own
  const end = `.${name}`
  return [...layers].flatMap(([layer, tensors]) => (layer.endsWith(end) ? tensors : []))
}
