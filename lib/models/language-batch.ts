import { UnitLayout } from '../autograd/layout.js'
import type { PackedBatch } from '../data/packing.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import type { UnitBatch } from '../nn/accumulate.js'

/** Packed token sequences on a device: one row per token, rows of a unit together, no padding. */
export interface TokenBatch extends UnitBatch {
  readonly layout: UnitLayout
  /** Token ids, [rows] int32. */
  readonly ids: Tensor
  /** Place of each token in its sequence, [rows] int32. */
  readonly positions: Tensor
  /** Segment of each token (BERT's token type), [rows] int32; default 0. */
  readonly tokenTypes?: Tensor
}

/** What each row is to predict. */
export interface Targets {
  /** Token to predict, [rows] int32; -1: none. */
  readonly targets: Tensor
  /**
   * 1 / (targets of the row's sequence * sequences of its unit), [rows]: a sequence's loss is the mean over its own targets (0
   * where it has none), a unit's the mean over its sequences.
   */
  readonly targetWeights: Tensor
}

/** For causal language models: each row predicts the next token of its sequence. */
export interface CausalBatch extends TokenBatch, Targets {}

/** For encoder-decoders: sequences to read, and for each the rows that the decoder reads and predicts from. */
export interface Seq2SeqBatch extends TokenBatch {
  readonly decoder: TokenBatch & Targets
}

/** Puts token sequences on a device. */
export function tokenBatch(device: Device, packed: PackedBatch): TokenBatch {
  const { sequenceOffsets, unitSequences } = packed
  const sequences =
    sequenceOffsets && unitSequences ? { offsets: sequenceOffsets, unitOffsets: unitSequences } : undefined
  return onLayout(device, packed, new UnitLayout(device, packed.offsets, packed.units, 'rows', { sequences }))
}

/**
 * Puts sequences on a device whose rows predict the token after them; the last row of a sequence predicts nothing, nor do
 * rows before `firstTarget` of it (a prompt that is given, not learnt), [sequences].
 */
export function causalBatch(device: Device, packed: PackedBatch, firstTarget?: Int32Array): CausalBatch {
  const batch = tokenBatch(device, packed)
  const bounds = packed.sequenceOffsets ?? packed.offsets
  const targets = new Int32Array(packed.ids.length).fill(-1)
  for (let sequence = 0; sequence + 1 < bounds.length; sequence++) {
    const end = bounds[sequence + 1]! - 1
    const first = bounds[sequence]! + Math.max(0, (firstTarget?.[sequence] ?? 0) - 1)
    for (let row = first; row < end; row++) targets[row] = packed.ids[row + 1]!
  }
  return { ...batch, ...targetsOf(device, targets, batch.layout) }
}

/**
 * Puts pairs of sequences on a device: `source` is read, `target` is to be written, token by token after `startToken`. Both
 * hold the same units, sequence by sequence.
 */
export function seq2seqBatch(
  device: Device,
  source: PackedBatch,
  target: PackedBatch,
  startToken: number,
): Seq2SeqBatch {
  const same =
    `${source.units}` === `${target.units}` && `${source.unitSequences ?? []}` === `${target.unitSequences ?? []}`
  if (!same) throw new DpMoeError('SHAPE_MISMATCH', 'seq2seqBatch: expected the same units and sequences on both sides')
  const batch = tokenBatch(device, source)
  const bounds = target.sequenceOffsets ?? target.offsets
  const layout = batch.layout.beside(bounds, 'decoder rows')
  const ids = new Int32Array(target.ids.length)
  for (let sequence = 0; sequence + 1 < bounds.length; sequence++) {
    const [begin, end] = [bounds[sequence]!, bounds[sequence + 1]!]
    if (begin === end) continue
    ids[begin] = startToken
    ids.set(target.ids.subarray(begin, end - 1), begin + 1)
  }
  const decoder = { ...onLayout(device, { ...target, ids }, layout), ...targetsOf(device, target.ids, layout) }
  return { ...batch, decoder }
}

function onLayout(device: Device, { ids, positions }: PackedBatch, layout: UnitLayout): TokenBatch {
  const rows = ids.length
  return {
    layout,
    ids: device.tensor(ids, [rows], 'int32').withLayout(layout),
    positions: device.tensor(positions, [rows], 'int32').withLayout(layout),
  }
}

function targetsOf(device: Device, targets: Int32Array, layout: UnitLayout): Targets {
  const rows = targets.length
  const weights = new Float32Array(rows)
  const { sequenceBounds: bounds, unitSequences } = layout
  for (let unit = 0; unit < layout.units; unit++) {
    const [first, last] = [unitSequences[unit]!, unitSequences[unit + 1]!]
    for (let sequence = first; sequence < last; sequence++) {
      const [begin, end] = [bounds[sequence]!, bounds[sequence + 1]!]
      const count = targets.subarray(begin, end).reduce((sum, target) => sum + (target >= 0 ? 1 : 0), 0)
      weights.fill(1 / (Math.max(1, count) * (last - first)), begin, end)
    }
  }
  return {
    targets: device.tensor(targets, [rows], 'int32').withLayout(layout),
    targetWeights: device.tensor(weights, [rows]).withLayout(layout),
  }
}
