import { LoadEstimate } from '../autograd/load-balance.js'
import type { Parameter } from '../autograd/parameter.js'
import { DpMoeError } from '../errors.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import type { LowRankAdapter, LowRankConfig } from './low-rank-adapter.js'
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
export type AdapterTarget = 'attention' | 'experts' | 'router'

/** Routers stay as they are unless they are asked for: under noise they drift more than they learn. */
export const defaultAdapterTargets: readonly AdapterTarget[] = ['attention', 'experts']

export interface TrainableOptions extends LowRankConfig {
  /** Full names of the parameters of the head, which trains under every choice. Default: none. */
  readonly head?: RegExp
  /** What gets adapters; the head never does. Default `defaultAdapterTargets`. */
  readonly targets?: readonly AdapterTarget[]
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
 * | lora | adapters, the head | on `targets` |
 * | lora, no target or a target that the model lacks | INVALID_ARGUMENT | |
 * | any choice that leaves nothing | INVALID_ARGUMENT | |
 *
 * @throws DpMoeError INVALID_ARGUMENT; OutOfRangeError for a rank above a matrix's smaller side
 */
export function setTrainable(
  module: Module,
  choice: TrainableChoice,
  init: Initializer,
  { head, targets, ...adapter }: TrainableOptions = {},
): void {
  if (choice !== 'all') {
    for (const [name, parameter] of module.namedParameters()) {
      const isBias = choice === 'bias' && /(^|\.)\w*bias$/i.test(name)
      if (!isBias && !head?.test(name) && !(parameter instanceof LoadEstimate)) parameter.freeze()
    }
  }
  if (choice === 'lora') {
    const layers = [...adaptable(module)].filter(([, target]) => (targets ?? defaultAdapterTargets).includes(target))
    const lacking: string | undefined = targets?.find((wanted) => !layers.some(([, target]) => target === wanted))
    if (lacking !== undefined || targets?.length === 0) {
      throw new DpMoeError('INVALID_ARGUMENT', `There is no ${lacking ?? 'layer'} for adapters to go to`)
    }
    for (const [layer] of layers) layer.adapt(init, adapter)
    for (const [name, parameter] of module.namedParameters()) if (parameter.name === '') parameter.name = name
  }
  if (module.trainableParameters().length > 0) return
  throw new DpMoeError(
    'INVALID_ARGUMENT',
    `Expected something to train under '${choice}', and every parameter is frozen`,
  )
}

/** The layers that can have adapters, and what they are. */
function* adaptable(module: Module): Generator<[Linear | MixtureOfExperts, AdapterTarget]> {
  for (const [name, layer] of module.namedModules()) {
    if (layer instanceof MixtureOfExperts) yield [layer, 'experts']
    if (!(layer instanceof Linear)) continue
    if (/(^|\.)router$/.test(name)) yield [layer, 'router']
    else if (/attention\./i.test(name)) yield [layer, 'attention']
    else if (/(^|\.)feedForward\./.test(name)) yield [layer, 'experts']
  }
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
