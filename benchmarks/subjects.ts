import { type EncodedUnit, packBatch, splitIntoMicroBatches } from '../lib/data/packing.js'
import type { Device } from '../lib/engine/index.js'
import { BertClassifier } from '../lib/models/bert.js'
import type { BertConfig } from '../lib/models/bert-config.js'
import { Decoder } from '../lib/models/decoder.js'
import type { DecoderConfig } from '../lib/models/decoder-kinds.js'
import { causalBatch, seq2seqBatch } from '../lib/models/language-batch.js'
import type { SwitchTransformerConfig } from '../lib/models/switch-config.js'
import { SwitchTransformer } from '../lib/models/switch-transformer.js'
import { textBatch } from '../lib/models/text-batch.js'
import {
  accumulateGradients,
  type LossFunction,
  type MicroBatch,
  sumSink,
  type UnitBatch,
} from '../lib/nn/accumulate.js'
import { Initializer } from '../lib/nn/initializer.js'
import type { Module } from '../lib/nn/module.js'
import { sgd } from '../lib/optim/sgd.js'
import { keyTensor, seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'

/** A model of the size that people fine-tune, with the loss of consecutive units of a batch. */
export interface Subject {
  readonly module: Module
  readonly loss: LossFunction<UnitBatch>
  make(units: readonly EncodedUnit[]): UnitBatch
  /**
   * Floating-point operations of a forward and backward pass over one unit of that many tokens: 6 for each weight that a
   * token meets, 12 d for each query and key.
   */
  flops(tokens: number): number
}

function subjectOf<B extends UnitBatch>(
  module: Module & { loss: LossFunction<B> },
  make: (units: readonly EncodedUnit[]) => B,
  flops: (tokens: number) => number,
): Subject {
  return { module, loss: module.loss.bind(module) as LossFunction<UnitBatch>, make, flops }
}

export const bertConfig = {
  vocabularySize: 30_522,
  hiddenSize: 384,
  intermediateSize: 1536,
  numLayers: 6,
  numAttentionHeads: 12,
  maxPositions: 512,
  tokenTypes: 2,
  activation: 'gelu',
  layerNormEpsilon: 1e-12,
  labels: ['a', 'b'],
  dropout: 0,
  mixture: { numExperts: 8, expertsPerToken: 1, layers: [1, 3, 5] },
} satisfies BertConfig

function bert(device: Device): Subject {
  const { hiddenSize: d, intermediateSize, numLayers } = bertConfig
  return subjectOf(
    new BertClassifier(new Initializer(device, 1), bertConfig),
    (units) => textBatch(device, packBatch(units), new Int32Array(units.length)),
    (n) => numLayers * (6 * n * (4 * d * d + 2 * d * intermediateSize) + 12 * d * n * n),
  )
}

const decoderConfig = {
  kind: 'olmoe',
  vocabularySize: 50_304,
  hiddenSize: 512,
  headSize: 64,
  numLayers: 6,
  numAttentionHeads: 8,
  numKeyValueHeads: 8,
  numExperts: 16,
  expertsPerToken: 4,
  expertSize: 256,
  denseSize: 0,
  denseLayers: [],
  normalizeGates: false,
  routerJitter: 0,
  balanceLoss: 0.01,
  activation: 'silu',
  attentionBias: false,
  clipQkv: undefined,
  normEpsilon: 1e-5,
  ropeTheta: 10_000,
  ropeFactor: 1,
  tiedHead: false,
} satisfies DecoderConfig

function decoder(device: Device): Subject {
  const { hiddenSize: d, numLayers, expertsPerToken, expertSize, vocabularySize } = decoderConfig
  const layer = 4 * d * d + expertsPerToken * 3 * d * expertSize
  return subjectOf(
    new Decoder(new Initializer(device, 1), decoderConfig),
    (units) => causalBatch(device, packBatch(units)),
    (n) => 6 * n * (numLayers * layer + d * vocabularySize) + (numLayers * 12 * d * n * n) / 2,
  )
}

const switchConfig = {
  vocabularySize: 32_128,
  hiddenSize: 512,
  headSize: 64,
  numAttentionHeads: 8,
  intermediateSize: 1024,
  numLayers: 4,
  numDecoderLayers: 4,
  sparseStep: 2,
  decoderSparseStep: 2,
  numExperts: 8,
  capacityPerSequence: 0,
  routerBias: false,
  routerJitter: 0.01,
  activation: 'relu',
  normEpsilon: 1e-6,
  relativeBuckets: 32,
  relativeMaxDistance: 128,
  tiedHead: true,
  balanceLoss: 0.01,
  zLoss: 0,
  dropout: 0.1,
  decoderStartToken: 0,
} satisfies SwitchTransformerConfig

/** The first half of a unit is read, and written by the decoder once more. */
function switchTransformer(device: Device): Subject {
  const { hiddenSize: d, intermediateSize, numLayers, numDecoderLayers, vocabularySize } = switchConfig
  const [attention, wide] = [4 * d * d, 2 * d * intermediateSize]
  return subjectOf(
    new SwitchTransformer(new Initializer(device, 1), switchConfig),
    (units) => {
      const half = units.map((unit) => ({ ...unit, ids: unit.ids.subarray(0, Math.ceil(unit.ids.length / 2)) }))
      return seq2seqBatch(device, packBatch(half), packBatch(half), 0)
    },
    (tokens) => {
      const n = Math.ceil(tokens / 2)
      const layers = numLayers * (attention + wide) + numDecoderLayers * (2 * attention + wide)
      const products = numLayers * 12 + numDecoderLayers * (6 + 12)
      return 6 * n * (layers + d * vocabularySize) + products * d * n * n
    },
  )
}

export const subjects = { bert, decoder, switch: switchTransformer }

export interface Case {
  readonly model: keyof typeof subjects
  readonly examples: number
  readonly length: number
  readonly maxTokens: number
}

export const cases: Readonly<Record<string, Case>> = {
  'bert 64 x 128': { model: 'bert', examples: 64, length: 128, maxTokens: 2048 },
  'bert 1024 x 8': { model: 'bert', examples: 1024, length: 8, maxTokens: 2048 },
  'decoder 64 x 32': { model: 'decoder', examples: 64, length: 32, maxTokens: 2048 },
  'decoder 1024 x 4': { model: 'decoder', examples: 1024, length: 4, maxTokens: 2048 },
  'decoder 8 x 512': { model: 'decoder', examples: 8, length: 512, maxTokens: 2048 },
  'decoder 2 x 2048': { model: 'decoder', examples: 2, length: 2048, maxTokens: 2048 },
  'switch 64 x 64': { model: 'switch', examples: 64, length: 64, maxTokens: 2048 },
  'switch 1024 x 8': { model: 'switch', examples: 1024, length: 8, maxTokens: 2048 },
}

/** Units of random tokens. */
export function unitsOf({ examples, length }: Case): EncodedUnit[] {
  let state = 1
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % 30_000
  }
  return Array.from({ length: examples }, (_, unit) => ({ unit, ids: Int32Array.from({ length }, next) }))
}

/** The units in micro-batches of at most maxTokens tokens. */
export function microBatchesOf(
  { make }: Subject,
  units: readonly EncodedUnit[],
  maxTokens: number,
): MicroBatch<UnitBatch>[] {
  const lengths = units.map(({ ids }) => ids.length)
  return splitIntoMicroBatches(lengths, maxTokens).map(
    ({ start, end }) =>
      () =>
        make(units.slice(start, end)),
  )
}

/** A step of a subject over micro-batches of `units` units, to be made again and again. */
export function stepOf(
  mode: 'plain' | 'private',
  device: Device,
  { module, loss }: Subject,
  microBatches: readonly MicroBatch<UnitBatch>[],
  units: number,
): (step: number) => Promise<void> {
  const optimizer = sgd(module.parameters(), { learningRate: 1e-3 })
  const key = seedKey(1)
  if (mode === 'private') {
    const options = { optimizer, key, noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: units }
    const made = new PrivateOptimizer(options)
    return async (step) => {
      await made.step(step, microBatches, loss)
      await device.synchronize()
    }
  }
  const random = { key: keyTensor(device, key), step: 0 }
  return async (step) => {
    await accumulateGradients(device, microBatches, loss, sumSink, { random })
    device.scope(() => optimizer.update({ step, divisor: units }))
    await device.synchronize()
  }
}
