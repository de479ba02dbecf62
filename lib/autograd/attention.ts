import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, requireAligned, requireShared, requireUnits, type Segments, type UnitLayout } from './layout.js'
import type { Parameter } from './parameter.js'
import type { Tape } from './tape.js'

/** A bias by distance, added to the scores: one number per head for each bucket of distances (arXiv 1910.10683). */
export interface RelativeBias {
  /** [buckets, heads]. */
  readonly table: Parameter
  /** Bucket of each distance key - query from -(span - 1) to span - 1; those further away count as the nearest end. */
  readonly buckets: Int32Array
}

export interface AttentionOptions {
  heads: number
  /** Grouped-query attention: heads that share keys and values. Default: heads. */
  keyValueHeads?: number
  /** Default 1 / sqrt(head size). */
  scale?: number
  /** A row sees itself and earlier rows of its sequence only. Default false. */
  causal?: boolean
  bias?: RelativeBias
}

/**
 * Softmax attention within each sequence, never across: q [rows, heads * headSize],
 * k and v [keys, keyValueHeads * headSize] -> [rows, heads * headSize]. The keys are q's own rows, or other rows of the
 * same units (`UnitLayout.beside`): those of an encoder, or a cache that ends with q's rows.
 */
export function attention(tape: Tape, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  requireAligned('attention', k, v)
  const layout = requireUnits('attention', q)
  const keyLayout = requireUnits('attention', k)
  if (!layout.pairedWith(keyLayout)) requireAligned('attention', q, k)
  const { device } = tape
  const { heads, causal = false, bias } = options
  const keyValueHeads = options.keyValueHeads ?? heads
  const headSize = q.shape[1]! / heads
  const fits =
    Number.isInteger(headSize) &&
    heads % keyValueHeads === 0 &&
    k.shape[1] === keyValueHeads * headSize &&
    v.shape[1] === k.shape[1]
  if (!fits) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `attention: expected q [rows, ${heads} * headSize], k and v [rows, ${keyValueHeads} * headSize], got ` +
        `${describe(q)}, ${describe(k)}, ${describe(v)}`,
    )
  }
  const distances = bias && biasByDistance(device, bias, heads)
  const y = device.empty(q.shape, { layout, dtype: q.dtype })
  const logSumExp = device.empty([layout.rows, heads])
  const common = {
    q,
    k,
    v,
    offsets: layout.sequenceOffsets,
    keyOffsets: keyLayout === layout ? undefined : keyLayout.sequenceOffsets,
    bias: distances?.values,
    y,
    logSumExp,
    rows: layout.rows,
    units: layout.sequenceCount,
    heads,
    keyValueHeads,
    headSize,
    span: distances?.span ?? 0,
    scale: options.scale ?? 1 / Math.sqrt(headSize),
    causal,
  }
  device.run('attention', common)
  const backward = (dy: Tensor) => {
    const dq = device.empty(q.shape, { layout, dtype: q.dtype })
    const dk = device.empty(k.shape, { layout: keyLayout, dtype: k.dtype })
    const dv = device.empty(v.shape, { layout: keyLayout, dtype: v.dtype })
    const table = bias?.table
    const perSequence = bias?.buckets.length ?? 0
    const dBias = tape.trains(table) ? device.empty([layout.sequenceCount * perSequence, heads]) : undefined
    device.run('attentionBackward', { ...common, dy, dq, dk, dv, dBias })
    tape.addGradient(q, dq)
    tape.addGradient(k, dk)
    tape.addGradient(v, dv)
    if (bias && dBias) {
      const ids = bucketsOfSequences(device, bias.buckets, layout.sequenceCount)
      const segments = distanceSegments(layout, perSequence)
      tape.addSite({ kind: 'embedding', parameter: bias.table, dy: dBias, ids, segments })
    }
  }
  tape.record([y], [q, k, v], [bias?.table], ([dy]) => backward(dy!), [logSumExp])
  return y
}

/** The bias of every distance, [2 * span - 1, heads]. */
function biasByDistance(device: Device, { table, buckets }: RelativeBias, heads: number) {
  requireShared('attention', 'the bias', table.tensor)
  const [vocabulary, columns] = table.shape
  if (table.shape.length !== 2 || columns !== heads || buckets.length % 2 === 0) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `attention: expected a bias [buckets, ${heads}] and an odd number of distances, got ` +
        `[${table.shape.join(', ')}] and ${buckets.length}`,
    )
  }
  const rows = buckets.length
  const values = device.empty([rows, heads])
  const ids = device.tensor(buckets, [rows], 'int32')
  device.run('embedding', {
    table: table.tensor,
    ids,
    y: values,
    rows,
    d: heads,
    vocabulary: vocabulary!,
    scale: 1,
  })
  return { values, span: (rows + 1) / 2 }
}

/** The buckets once per sequence: which table row each row of dBias is of. */
function bucketsOfSequences(device: Device, buckets: Int32Array, sequences: number): Tensor {
  const ids = new Int32Array(sequences * buckets.length)
  for (let sequence = 0; sequence < sequences; sequence++) ids.set(buckets, sequence * buckets.length)
  return device.tensor(ids, [ids.length], 'int32')
}

/** Rows of dBias by unit. */
function distanceSegments(layout: UnitLayout, perSequence: number): Segments {
  const { unitSequences, units, device } = layout
  const bounds = unitSequences.map((sequence) => sequence * perSequence)
  const lengths = Int32Array.from({ length: units }, (_, unit) => bounds[unit + 1]! - bounds[unit]!)
  return { offsets: device.tensor(bounds, [bounds.length], 'int32'), segments: units, units, lengths, fanOut: 1 }
}
