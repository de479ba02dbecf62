import type { Device } from '../lib/engine/index.js'
import { SwitchClassifier, type SwitchClassifierConfig } from '../lib/models/switch-classifier.js'
import { type TextBatch, textBatch } from '../lib/models/text-batch.js'
import { Initializer } from '../lib/nn/initializer.js'

/** The reference mixture of experts, 3,696,402 parameters: the model of benchmarks/peers/torch_moe.py. */
export const referenceConfig: SwitchClassifierConfig = {
  vocabularySize: 8192,
  numLabels: 2,
  hiddenSize: 128,
  numLayers: 4,
  numAttentionHeads: 4,
  intermediateSize: 512,
  numExperts: 8,
  sparseEvery: 2,
  maxPositions: 64,
}

export const referenceBatchSize = 256

export function referenceModel(device: Device): SwitchClassifier {
  return new SwitchClassifier(new Initializer(device, 1), referenceConfig)
}

/** Packed random batches with the lengths of the reference: 16 to 64 tokens, mean about 20. */
export interface ReferenceBatch {
  readonly rows: number
  /** Sum of squared lengths: attention's share of the work. */
  readonly squares: number
  make(device: Device): TextBatch
}

export function referenceBatches(count: number, seed = 1, texts = referenceBatchSize): ReferenceBatch[] {
  let state = seed
  const uniform = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return (state + 0.5) / 2 ** 32
  }
  return Array.from({ length: count }, () => {
    const lengths = Array.from({ length: texts }, () => Math.min(64, 16 + Math.floor(-Math.log(1 - uniform()) * 4.5)))
    const offsets = new Int32Array(lengths.length + 1)
    lengths.forEach((length, unit) => {
      offsets[unit + 1] = offsets[unit]! + length
    })
    const rows = offsets[lengths.length]!
    const ids = Int32Array.from({ length: rows }, () => 1 + Math.floor(uniform() * 8191))
    const positions = Int32Array.from(lengths.flatMap((length) => Array.from({ length }, (_, position) => position)))
    const units = Int32Array.from(lengths, (_, unit) => unit)
    const labels = Int32Array.from(lengths, () => Math.floor(uniform() * 2))
    const squares = lengths.reduce((sum, length) => sum + length * length, 0)
    return { rows, squares, make: (device) => textBatch(device, { ids, positions, offsets, units }, labels) }
  })
}

/** Floating-point operations of a forward and backward pass over the real tokens: 6 per weight and token, attention apart. */
export function referenceFlops({ rows, squares }: Pick<ReferenceBatch, 'rows' | 'squares'>): number {
  const { hiddenSize: d, intermediateSize, numLayers } = referenceConfig
  const weightsPerToken = numLayers * (4 * d * d + 2 * d * intermediateSize)
  return 6 * weightsPerToken * rows + 12 * numLayers * d * squares
}
