import type { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { FeedForward } from '../nn/feed-forward.js'
import { Initializer } from '../nn/initializer.js'
import { MixtureOfExperts } from '../nn/mixture-of-experts.js'
import { BertClassifier, type BertLoadOptions } from './bert.js'

export interface UpcycleOptions extends BertLoadOptions {
  readonly numExperts: number
  /** Default 1. */
  readonly expertsPerToken?: number
  /** Which layers become mixtures. Default 'every-second': 1, 3, 5, ... */
  readonly layers?: 'every-second' | 'all'
}

/**
 * Sparse upcycling (Komatsuzaki et al., arXiv 2212.05055): a dense BERT whose feed-forward parts are copied into the experts of
 * mixtures, with a router of random first weights from `seed`.
 *
 * The gates of a token's experts sum to 1 and the experts are equal at first, so the model computes what the dense one
 * does, whatever the router chooses.
 *
 * @throws OutOfRangeError, DpMoeError MODEL_FORMAT as `BertClassifier.fromPretrained`, or where it has mixtures already
 */
export async function upcycle(device: Device, folder: string, options: UpcycleOptions): Promise<BertClassifier> {
  const { numExperts, expertsPerToken = 1, layers = 'every-second', seed = 0, ...load } = options
  if (!(Number.isInteger(numExperts) && numExperts >= 2)) {
    throw new OutOfRangeError('numExperts', 'an integer >= 2', numExperts)
  }
  if (!(Number.isInteger(expertsPerToken) && expertsPerToken >= 1 && expertsPerToken <= numExperts)) {
    throw new OutOfRangeError('expertsPerToken', `an integer from 1 to ${numExperts}`, expertsPerToken)
  }
  using dense = await BertClassifier.fromPretrained(device, folder, { ...load, seed })
  if (dense.config.mixture) {
    throw new DpMoeError('MODEL_FORMAT', `${folder}: expected a dense model, got one with mixtures of experts`)
  }
  const { numLayers } = dense.config
  const chosen = Array.from({ length: numLayers }, (_, layer) => layer).filter((l) => layers === 'all' || l % 2 === 1)
  const mixture = { numExperts, expertsPerToken, layers: chosen }
  const config = { ...dense.config, mixture }
  const model = new BertClassifier(new Initializer(device, seed), config, {
    source: dense.configJson(),
    training: options,
  })
  const weights = dense.namedParameters()
  for (const [name, parameter] of model.namedParameters()) {
    const source = weights.get(name)
    if (source && source.size === parameter.size) parameter.tensor.copyFrom(source.tensor)
  }
  for (const [index, { feedForward }] of model.encoder.layers.entries()) {
    const source = dense.encoder.layers[index]!.feedForward
    if (!(feedForward instanceof MixtureOfExperts && source instanceof FeedForward)) continue
    repeat(source.up.weight, feedForward.up)
    repeat(source.up.bias!, feedForward.upBias!)
    repeat(source.down.weight, feedForward.down)
    repeat(source.down.bias!, feedForward.downBias!)
  }
  return model
}

/** Writes `from` once for every expert. */
function repeat(from: Parameter, to: Parameter): void {
  for (let offset = 0; offset < to.size; offset += from.size) {
    using slice = to.tensor.slice(offset, from.size)
    slice.copyFrom(from.tensor)
  }
}
