import { linear } from '../autograd/linear.js'
import type { Parameter } from '../autograd/parameter.js'
import type { DType } from '../engine/dtype.js'
import type { Tensor } from '../engine/tensor.js'
import { OutOfRangeError } from '../errors.js'
import type { Initializer } from './initializer.js'
import { type ForwardContext, Module } from './module.js'

export interface LowRankConfig {
  /** r: columns of B, rows of A. Default 8. */
  readonly rank?: number
  /** The product is scaled by alpha / rank. Default 16. */
  readonly alpha?: number
}

/**
 * LoRA (Hu et al., arXiv 2106.09685): a trained change (alpha / rank) B A of a frozen matrix W [outputSize, inputSize], with
 * A [rank, inputSize] random and B [outputSize, rank] zero at first, so that nothing changes until B is trained.
 */
export class LowRankAdapter extends Module {
  readonly a: Parameter
  readonly b: Parameter
  readonly scale: number

  constructor(init: Initializer, [outputSize, inputSize]: readonly [number, number], config: LowRankConfig = {}) {
    super()
    const { rank = 8, alpha = 16 } = config
    const most = Math.min(inputSize, outputSize)
    if (!(Number.isInteger(rank) && rank >= 1 && rank <= most)) {
      throw new OutOfRangeError('rank', `an integer from 1 to ${most}, the smaller side of the matrix`, rank)
    }
    if (!(alpha > 0 && Number.isFinite(alpha))) throw new OutOfRangeError('alpha', 'a finite number > 0', alpha)
    this.a = init.normal([rank, inputSize], 1 / Math.sqrt(3 * inputSize))
    this.b = init.zeros([outputSize, rank])
    this.scale = alpha / rank
  }

  /** B A x, without the scale: x [rows, inputSize] -> [rows, outputSize]. */
  forward(x: Tensor, { tape }: ForwardContext, outputType?: DType): Tensor {
    const narrow = linear(tape, x, this.a, undefined, { operation: 'adapter' })
    return linear(tape, narrow, this.b, undefined, { operation: 'adapter', ...(outputType && { outputType }) })
  }

  /** Adds the scaled product to `weight` and starts the adapter at zero again: the layer's outputs stay the same. */
  mergeInto(weight: Parameter): void {
    const { device } = weight
    const [rank, inputSize] = this.a.shape as [number, number]
    const rows = this.b.shape[0]!
    device.scope(() => {
      device.run('matrixMultiply', {
        x: this.b.tensor,
        rowScale: device.empty([rows]).fill(this.scale),
        weight: this.a.tensor,
        y: weight.tensor,
        rows,
        k: rank,
        n: inputSize,
        groups: 1,
        groupStride: 1,
        transposed: false,
        accumulate: true,
        activation: 0,
      })
    })
    this.b.tensor.fill(0)
  }
}
