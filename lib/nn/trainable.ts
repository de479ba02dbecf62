import { LoadEstimate } from '../autograd/load-balance.js'
import type { Parameter } from '../autograd/parameter.js'
import { DpMoeError } from '../errors.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import { type LowRankAdapter, type LowRankConfig, requireAdapter } from './low-rank-adapter.js'
import { MixtureOfExperts } from './mixture-of-experts.js'
import type { Module } from './module.js'

/**
 * Which parameters train.
 * - `all`: every one.
 * - `head`: the head only.
 * - `bias`: biases and the head (BitFit, arXiv 2106.10199).
 * - `lora`: low-rank adapters on linear layers and experts, and the head (arXiv 2106.09685).
 */
export type TrainableChoice = 'all' | 'head' | 'bias' | 'lora'

/**
 * Where adapters go: the projections of attention, the feed-forward parts (mixtures of experts and dense ones), the routers
 * of mixtures.
 */
export type AdapterTarget = (typeof adapterTargets)[number]

const adapterTargets = ['attention', 'experts', 'router'] as const

/** Routers stay as they are unless they are asked for: under noise they drift more than they learn. */
export const defaultAdapterTargets: readonly AdapterTarget[] = ['attention', 'experts']

/** Where adapters go. */
interface AdapterPlaces {
  /** What gets adapters; the head never does. Default `defaultAdapterTargets`. */
  readonly targets?: readonly AdapterTarget[] | undefined
  /**
   * Numbers of the layers (from 0, of encoder and decoder alike) that get adapters; PEFT's layers_to_transform. Below the
   * lowest of them nothing trains, and no gradient is computed (but in a decoder, for the encoder that it reads). Default:
   * every layer.
   */
  readonly layers?: readonly number[] | undefined
}

export interface TrainableOptions extends LowRankConfig, AdapterPlaces {
  /** Full names of the parameters of the head, which trains under every choice. Default: none. */
  readonly head?: RegExp
}

/**
 * Sets which parameters of a model train; clipping and noise see only those. Parameters that the model itself froze for
 * good stay frozen under `all`; load estimates go on under every choice.
 *
 * Guarantee. A frozen parameter takes no part in norms, noise or updates: what is released of it is its public first value.
 *
 * | choice | trains | adapters |
 * |---|---|---|
 * | all | what the model trains by itself | none |
 * | head | the head | none |
 * | bias | biases, the head | none |
 * | lora | adapters, the head | on `targets`, of `layers` |
 * | lora, no target or a target that the model (or those of its layers) lacks | INVALID_ARGUMENT | |
 * | lora, no layer or a layer that the model lacks, or that has none of the targets | INVALID_ARGUMENT | |
 * | lora, a rank that is no integer from 1 to the smaller side of each matrix, an alpha that scales nothing | OutOfRangeError | |
 * | lora, `targets` or `layers` that is no list, or has something twice | INVALID_ARGUMENT | |
 * | any choice that leaves nothing | INVALID_ARGUMENT | |
 *
 * @throws DpMoeError INVALID_ARGUMENT; OutOfRangeError. Nothing is frozen then, but where a choice leaves nothing
 */
export function setTrainable(
  module: Module,
  choice: TrainableChoice,
  init: Initializer,
  { head, targets, layers, ...adapter }: TrainableOptions = {},
): void {
  // Refused before anything is frozen.
  const places = choice === 'lora' ? chosen(module, { targets, layers }) : []
  for (const place of places) requireAdapters(place, adapter)
  if (choice !== 'all') {
    for (const [name, parameter] of module.namedParameters()) {
      const isBias = choice === 'bias' && /(^|\.)\w*bias$/i.test(name)
      if (!isBias && !head?.test(name) && !(parameter instanceof LoadEstimate)) parameter.freeze()
    }
  }
  if (choice === 'lora') {
    for (const { module: adapted } of places) adapted.adapt(init, adapter)
    for (const [name, parameter] of module.namedParameters()) if (parameter.name === '') parameter.name = name
  }
  if (module.trainableParameters().length > 0) return
  throw refused(`Expected something to train under '${choice}', and every parameter is frozen`)
}

/** What can have adapters. */
interface Adaptable {
  readonly module: Linear | MixtureOfExperts
  readonly target: AdapterTarget
  /** Number of the layer that it is in; undefined outside of these. */
  readonly layer: number | undefined
}

function* adaptable(root: Module): Generator<Adaptable> {
  for (const [name, module] of root.namedModules()) {
    const number = /(?:^|\.)layers\.(\d+)\./.exec(name)?.[1]
    const layer = number === undefined ? undefined : Number(number)
    if (module instanceof MixtureOfExperts) yield { module, target: 'experts', layer }
    if (!(module instanceof Linear)) continue
    if (/(^|\.)router$/.test(name)) yield { module, target: 'router', layer }
    else if (/attention\./i.test(name)) yield { module, target: 'attention', layer }
    else if (/(^|\.)feedForward\./.test(name)) yield { module, target: 'experts', layer }
  }
}

/** What is to have adapters: each target and each layer that was asked for has some. */
function chosen(root: Module, { targets, layers }: AdapterPlaces): Adaptable[] {
  requireList('targets', targets, (target) => adapterTargets.includes(target), adapterTargets.join(', '))
  requireList('layers', layers, (layer) => Number.isInteger(layer) && layer >= 0, 'numbers of layers')
  const wanted = targets ?? defaultAdapterTargets
  const all = [...adaptable(root)].filter(({ target }) => wanted.includes(target))
  requireTargets(all, targets)
  if (layers === undefined) return all
  const numbers = all.flatMap(({ layer }) => layer ?? [])
  const layer = layers.find((number) => !numbers.includes(number))
  if (layers.length === 0 || layer !== undefined) {
    const expected =
      numbers.length === 0
        ? `no list, since ${wanted.join(' and ')} are in no numbered layers here`
        : `numbers of layers with ${wanted.join(' or ')}, of which the last is ${Math.max(...numbers)}`
    throw refused(`layers: expected ${expected}, got ${layer ?? 'none'} (--lora-layers)`)
  }
  const found = all.filter((one) => layers.includes(one.layer ?? -1))
  requireTargets(found, targets, ` in layers ${layers.join()}`)
  return found
}

function requireList<T>(name: string, list: readonly T[] | undefined, isOne: (value: T) => boolean, of: string): void {
  if (list === undefined) return
  const isFit = Array.isArray(list) && [...list].every(isOne) && new Set(list).size === list.length
  if (!isFit) throw refused(`${name}: expected a list of ${of}, each once, got ${shown(list)} (--lora-${name})`)
}

/** JSON shows what is undefined or no number as null. */
const shown = (value: unknown) =>
  JSON.stringify(value, (_, inner: unknown) =>
    inner === undefined || (typeof inner === 'number' && !Number.isFinite(inner)) ? String(inner) : inner,
  )

function requireAdapters({ module, target, layer }: Adaptable, config: LowRankConfig): void {
  const matrices = module instanceof Linear ? [module.weight] : [module.up, module.down]
  const where = layer === undefined ? target : `${target} of layer ${layer}`
  for (const { shape } of matrices) requireAdapter(shape, config, where)
}

function requireTargets(found: readonly Adaptable[], targets: readonly AdapterTarget[] | undefined, where = ''): void {
  const target = targets?.find((name) => !found.some((one) => one.target === name))
  if (found.length > 0 && target === undefined) return
  throw refused(`There is no ${target ?? 'layer'}${where} for adapters to go to (--lora-targets)`)
}

function refused(message: string): DpMoeError {
  return new DpMoeError('INVALID_ARGUMENT', message)
}

/** Writes every adapter into its weight: the model has plain weights again and computes the same. */
export function mergeAdapters(module: Module): void {
  for (const layer of module.modules()) {
    if (layer instanceof Linear || layer instanceof MixtureOfExperts) layer.mergeAdapter()
  }
}

/** Every adapter of a module, by the weight that it changes. */
export function adaptersOf(module: Module): Map<Parameter, LowRankAdapter> {
  const found = new Map<Parameter, LowRankAdapter>()
  const add = (weight: Parameter | undefined, adapter: LowRankAdapter | undefined) => {
    if (weight && adapter) found.set(weight, adapter)
  }
  for (const layer of module.modules()) {
    if (layer instanceof Linear) add(layer.weight, layer.adapter)
    if (!(layer instanceof MixtureOfExperts)) continue
    for (const part of ['gate', 'up', 'down'] as const) add(layer[part], layer.adapters?.[part])
  }
  return found
}
