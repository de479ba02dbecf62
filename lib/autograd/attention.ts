import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, requireAligned, requireUnits } from './layout.js'
import type { Tape } from './tape.js'

export interface AttentionOptions {
  heads: number
  /** Grouped-query attention: heads that share keys and values. Default: heads. */
  keyValueHeads?: number
  /** Default 1 / sqrt(head size). */
  scale?: number
  /** A row sees itself and earlier rows of its unit only. Default false. */
  causal?: boolean
}

/**
 * Softmax attention within each unit, never across units: q [rows, heads * headSize],
 * k and v [rows, keyValueHeads * headSize] -> [rows, heads * headSize].
 */
export function attention(tape: Tape, q: Tensor, k: Tensor, v: Tensor, options: AttentionOptions): Tensor {
  requireAligned('attention', q, k)
  requireAligned('attention', q, v)
  const layout = requireUnits('attention', q)
  const { device } = tape
  const { heads, causal = false } = options
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
  const like = { layout, dtype: q.dtype }
  const y = device.empty(q.shape, like)
  const logSumExp = device.empty([layout.rows, heads])
  const common = {
    q,
    k,
    v,
    offsets: layout.offsetsTensor,
    y,
    logSumExp,
    rows: layout.rows,
    units: layout.units,
    heads,
    keyValueHeads,
    headSize,
    span: 0,
    scale: options.scale ?? 1 / Math.sqrt(headSize),
    causal,
  }
  device.run('attention', common)
  tape.record([y], [q, k, v], [], ([dy]) => {
    const dq = device.empty(q.shape, like)
    const dk = device.empty(k.shape, like)
    const dv = device.empty(v.shape, like)
    device.run('attentionBackward', { ...common, dy: dy!, dq, dk, dv })
    tape.addGradient(q, dq)
    tape.addGradient(k, dk)
    tape.addGradient(v, dv)
  })
  return y
}
