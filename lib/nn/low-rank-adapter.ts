import type { RoutedLayout } from '../autograd/layout.js'
import { linear } from '../autograd/linear.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Tape } from '../autograd/tape.js'
import type { DType } from '../engine/dtype.js'
import type { Tensor } from '../engine/tensor.js'
import { OutOfRangeError } from '../errors.js'
import type { Initializer } from './initializer.js'
import { type ForwardContext, Module } from './module.js'

/** What adapters are where nothing else is said; a certificate states them. */
export const defaultRank = 8
export const defaultAlpha = 16

export interface LowRankConfig {
  /** r: columns of B, rows of A. Default 8. */
  readonly rank?: number
  /** The product is scaled by alpha / rank. Default 16. */
  readonly alpha?: number
}

/** Whether a factor of adapters is one in float32 too, where it multiplies: neither infinite nor 0. */
export function isScale(factor: number): boolean {
  return Math.fround(factor) > 0 && Number.isFinite(Math.fround(factor))
}

/**
 * Refuses a rank or alpha that no adapter of a matrix can have. `shape`: that of the matrix; `where`: what it is, for people.
 *
 * @throws OutOfRangeError
 */
export function requireAdapter(shape: readonly number[], config: LowRankConfig, where = 'the matrix'): void {
  const { rank = defaultRank, alpha = defaultAlpha } = config
  const [rows, columns] = shape.slice(-2) as [number, number]
  const most = Math.min(rows, columns)
  if (!(Number.isInteger(rank) && rank >= 1 && rank <= most)) {
    const expected = `an integer from 1 to ${most} (${where} is ${rows} x ${columns}; --lora-rank, default ${defaultRank})`
    throw new OutOfRangeError('rank', expected, rank)
  }
  if (!isScale(alpha / rank)) {
    const expected = `a number > 0 that float32 holds when it is divided by the rank, ${rank} (--lora-alpha)`
    throw new OutOfRangeError('alpha', expected, alpha)
  }
}

/**
 * LoRA (Hu et al., arXiv 2106.09685): a trained change (alpha / rank) B A of a frozen matrix W [outputSize, inputSize], with
 * A [rank, inputSize] random and B [outputSize, rank] zero at first, so that nothing changes until B is trained. On a group
 * of experts W [experts, outputSize, inputSize] each expert has its own A and B.
 */
export class LowRankAdapter extends Module {
  readonly a: Parameter
  readonly b: Parameter
  readonly scale: number

  /** `shape`: that of W. */
  constructor(init: Initializer, shape: readonly number[], config: LowRankConfig = {}) {
    super()
    const { rank = defaultRank, alpha = defaultAlpha } = config
    const [outputSize, inputSize] = shape.slice(-2) as [number, number]
    const experts = shape.slice(0, -2)
    requireAdapter(shape, config)
    this.a = init.normal([...experts, rank, inputSize], 1 / Math.sqrt(3 * inputSize))
    this.b = init.zeros([...experts, outputSize, rank])
    this.scale = alpha / rank
  }

  /** B A x, without the scale: x [rows, inputSize] -> [rows, outputSize]; with a plan, in its slots. */
  forward(x: Tensor, { tape }: ForwardContext, outputType?: DType, routed?: RoutedLayout): Tensor {
    return linear(tape, this.narrow(x, tape, routed), this.b, undefined, {
      operation: 'adapter',
      ...(outputType && { outputType }),
    })
  }

  /** A x: [rows, rank]. */
  narrow(x: Tensor, tape: Tape, routed?: RoutedLayout): Tensor {
    return linear(tape, x, this.a, undefined, { operation: 'adapter', ...(routed && { routed }) })
  }

  /** Adds the scaled product to `weight` and starts the adapter at zero again: the layer's outputs stay the same. */
  mergeInto(weight: Parameter): void {
    const { device } = weight
    const [rank, inputSize] = this.a.shape.slice(-2) as [number, number]
    const groups = this.a.size / (rank * inputSize)
    const rows = this.b.size / rank
    const bounds = Int32Array.from({ length: groups + 1 }, (_, group) => (group * rows) / groups)
    device.scope(() => {
      device.run('matrixMultiply', {
        x: this.b.tensor,
        rowScale: device.empty([rows]).fill(this.scale),
        weight: this.a.tensor,
        groupOffsets: device.tensor(bounds, [groups + 1], 'int32'),
        y: weight.tensor,
        rows,
        k: rank,
        n: inputSize,
        groups,
        groupStride: 1,
        transposed: false,
        accumulate: true,
        activation: 0,
      })
    })
    this.b.tensor.fill(0)
  }
}
