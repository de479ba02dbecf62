import { embedding } from '../autograd/embedding.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { type ForwardContext, Module } from './module.js'

export interface EmbeddingConfig {
  vocabularySize: number
  hiddenSize: number
  /** Standard deviation of the first rows. Default 0.02; 0 starts at zero. */
  deviation?: number
}

/** A table of rows, [vocabularySize, hiddenSize]. */
export class Embedding extends Module {
  readonly weight: Parameter

  constructor(init: Initializer, { vocabularySize, hiddenSize, deviation = 0.02 }: EmbeddingConfig) {
    super()
    const shape = [vocabularySize, hiddenSize]
    this.weight = deviation === 0 ? init.zeros(shape) : init.normal(shape, deviation)
  }

  /** ids [rows] int32 -> [rows, hiddenSize]. */
  forward(ids: Tensor, { tape }: ForwardContext): Tensor {
    return embedding(tape, ids, this.weight)
  }
}
