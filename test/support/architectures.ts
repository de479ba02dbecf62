import { type EncodedUnit, packBatch } from '../../lib/data/packing.js'
import type { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Decoder } from '../../lib/models/decoder.js'
import { causalBatch, seq2seqBatch } from '../../lib/models/language-batch.js'
import { SwitchClassifier } from '../../lib/models/switch-classifier.js'
import { SwitchTransformer } from '../../lib/models/switch-transformer.js'
import { textBatch } from '../../lib/models/text-batch.js'
import type { LossFunction, UnitBatch } from '../../lib/nn/accumulate.js'
import { Initializer } from '../../lib/nn/initializer.js'
import type { Module } from '../../lib/nn/module.js'
import type { Subject } from './sites.js'
import { perturb } from './token-model.js'

/** A small model of each architecture, with what makes its passes hard to repeat: dropout, jitter, router losses. */
export type Architecture = 'bert' | 'decoder' | 'tied decoder' | 'switch transformer' | 'classifier'

export const architectures: readonly Architecture[] = [
  'bert',
  'decoder',
  'tied decoder',
  'switch transformer',
  'classifier',
]

export type TokenUnit = EncodedUnit

const vocabularySize = 61

function subjectOf<B extends UnitBatch>(
  device: Device,
  module: Module & { loss: LossFunction<B> },
  make: (units: readonly TokenUnit[]) => B,
): Subject<TokenUnit, UnitBatch> {
  perturb(device, module, 0.1)
  return { device, module, loss: module.loss.bind(module) as LossFunction<UnitBatch>, batch: make }
}

function bert(device: Device) {
  const model = new BertClassifier(
    new Initializer(device, 1),
    {
      vocabularySize,
      hiddenSize: 16,
      intermediateSize: 24,
      numLayers: 3,
      numAttentionHeads: 2,
      maxPositions: 64,
      tokenTypes: 2,
      activation: 'gelu',
      layerNormEpsilon: 1e-12,
      labels: ['a', 'b', 'c'],
      dropout: 0.2,
      mixture: { numExperts: 4, expertsPerToken: 1, layers: [1, 2] },
    },
    { training: { releaseLoad: true } },
  )
  return subjectOf(device, model, (units) =>
    textBatch(
      device,
      packBatch(units),
      Int32Array.from(units, ({ unit }) => unit % 3),
    ),
  )
}

function decoder(device: Device, tiedHead: boolean) {
  const model = new Decoder(new Initializer(device, 2), {
    kind: tiedHead ? 'qwen3_moe' : 'olmoe',
    vocabularySize,
    hiddenSize: 16,
    headSize: 8,
    numLayers: 3,
    numAttentionHeads: 2,
    numKeyValueHeads: tiedHead ? 1 : 2,
    numExperts: 4,
    expertsPerToken: 2,
    expertSize: 12,
    denseSize: 20,
    denseLayers: [1],
    normalizeGates: tiedHead,
    routerJitter: 0.1,
    balanceLoss: 0.1,
    activation: 'silu',
    attentionBias: false,
    clipQkv: tiedHead ? undefined : 3,
    normEpsilon: 1e-5,
    ropeTheta: 10_000,
    ropeFactor: 1,
    tiedHead,
  })
  return subjectOf(device, model, (units) => causalBatch(device, packBatch(units)))
}

function switchTransformer(device: Device) {
  const model = new SwitchTransformer(new Initializer(device, 3), {
    vocabularySize,
    hiddenSize: 16,
    headSize: 8,
    numAttentionHeads: 2,
    intermediateSize: 24,
    numLayers: 2,
    numDecoderLayers: 2,
    sparseStep: 2,
    decoderSparseStep: 2,
    numExperts: 4,
    capacityPerSequence: 4,
    routerBias: true,
    routerJitter: 0.1,
    activation: 'relu',
    normEpsilon: 1e-6,
    relativeBuckets: 8,
    relativeMaxDistance: 16,
    tiedHead: true,
    balanceLoss: 0.1,
    zLoss: 0.01,
    dropout: 0.2,
    decoderStartToken: 0,
  })
  return subjectOf(device, model, (units) => {
    const target = units.map((unit) => ({ ...unit, ids: unit.ids.slice(0, Math.ceil(unit.ids.length / 2)).reverse() }))
    return seq2seqBatch(device, packBatch(units), packBatch(target), 0)
  })
}

function classifier(device: Device) {
  const model = new SwitchClassifier(new Initializer(device, 4), {
    vocabularySize,
    numLabels: 3,
    hiddenSize: 16,
    numLayers: 2,
    numAttentionHeads: 2,
    intermediateSize: 24,
    numExperts: 4,
    expertsPerToken: 2,
    maxPositions: 64,
    dropout: 0.2,
  })
  return subjectOf(device, model, (units) =>
    textBatch(
      device,
      packBatch(units),
      Int32Array.from(units, ({ unit }) => unit % 3),
    ),
  )
}

export function architecture(device: Device, name: Architecture): Subject<TokenUnit, UnitBatch> {
  if (name === 'bert') return bert(device)
  if (name === 'switch transformer') return switchTransformer(device)
  if (name === 'classifier') return classifier(device)
  return decoder(device, name === 'tied decoder')
}

/** Units of the given lengths, tokens from a small fixed generator. */
export function tokenUnits(lengths: readonly number[], seed = 1): TokenUnit[] {
  let state = seed
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * vocabularySize)
  }
  return lengths.map((length, unit) => ({ unit, ids: Int32Array.from({ length }, next) }))
}
