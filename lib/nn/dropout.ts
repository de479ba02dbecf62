import { dropout } from '../autograd/elementwise.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { type ForwardContext, Module } from './module.js'

/** Zeroes entries with probability `rate` in training. `site` must differ between the dropout layers of a model. */
export class Dropout extends Module {
  constructor(
    readonly rate: number,
    readonly site: number,
  ) {
    super()
  }

  forward(x: Tensor, { tape, training, random }: ForwardContext): Tensor {
    if (!training || this.rate === 0) return x
    if (!random) throw new DpMoeError('INVALID_ARGUMENT', 'Dropout: expected context.random in training, got none')
    return dropout(tape, x, this.rate, random, this.site)
  }
}
