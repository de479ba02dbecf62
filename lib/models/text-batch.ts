import { UnitLayout } from '../autograd/layout.js'
import type { PackedBatch } from '../data/packing.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import type { UnitBatch } from '../nn/accumulate.js'

/** Packed texts on a device: one row per token, rows of a unit together, no padding. */
export interface TextBatch extends UnitBatch {
  readonly layout: UnitLayout
  /** Token ids, [rows] int32. */
  readonly ids: Tensor
  /** Place of each token in its text, [rows] int32. */
  readonly positions: Tensor
  /** Public weight of each token, [rows], where the tokenizer gives one. */
  readonly weights: Tensor | undefined
  /** Class of each sequence, [sequences] int32; -1 where there is none. */
  readonly labels: Tensor
}

/** Puts a packed batch on a device; without labels every class is -1, which has no loss. */
export function textBatch(device: Device, packed: PackedBatch, labels?: Int32Array): TextBatch {
  const { sequenceOffsets, unitSequences } = packed
  const sequences =
    sequenceOffsets && unitSequences ? { offsets: sequenceOffsets, unitOffsets: unitSequences } : undefined
  const layout = new UnitLayout(device, packed.offsets, packed.units, 'rows', { sequences })
  const rows = packed.ids.length
  const classes = labels ?? new Int32Array(layout.sequenceCount).fill(-1)
  return {
    layout,
    ids: device.tensor(packed.ids, [rows], 'int32').withLayout(layout),
    positions: device.tensor(packed.positions, [rows], 'int32').withLayout(layout),
    weights: packed.weights && device.tensor(packed.weights, [rows]).withLayout(layout),
    labels: device.tensor(classes, [layout.sequenceCount], 'int32').withLayout(layout.perSequence),
  }
}
