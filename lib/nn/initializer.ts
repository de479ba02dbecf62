import { createHash } from 'node:crypto'
import { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'

/** Makes first weights: public values, a pure function of a seed and the order of creation. */
export class Initializer {
  #stream = 0
  readonly #made: WeakRef<Tensor>[] = []
  readonly #key: Int32Array

  constructor(
    readonly device: Device,
    seed: number | string = 0,
  ) {
    const digest = createHash('sha256').update(`dp-moe initial weights ${seed}`).digest()
    this.#key = Int32Array.from({ length: 8 }, (_, word) => digest.readInt32LE(4 * word))
  }

  /** Independent normals with the given standard deviation. */
  normal(shape: readonly number[], deviation: number): Parameter {
    const parameter = this.made(this.device.empty(shape))
    const { tensor } = parameter
    const key = this.device.tensor(this.#key, [8], 'int32')
    this.device.run('gaussian', { key, y: tensor, first: 0, size: tensor.size, step: 0, stream: this.#stream++ })
    this.device.run('add', { a: tensor, y: tensor, size: tensor.size, alpha: deviation, beta: 0 })
    key[Symbol.dispose]()
    return parameter
  }

  constant(shape: readonly number[], value: number): Parameter {
    const size = shape.reduce((product, extent) => product * extent, 1)
    return this.made(this.device.tensor(new Float32Array(size).fill(value), shape))
  }

  zeros(shape: readonly number[]): Parameter {
    return this.made(this.device.zeros(shape))
  }

  /** Zeros that belong to a model and that no checkpoint brings. */
  state(shape: readonly number[]): Tensor {
    return this.made(this.device.zeros(shape)).tensor
  }

  /** Frees all that was made: of a model that could not be made whole. */
  discard(): void {
    for (const tensor of this.#made.splice(0)) tensor.deref()?.[Symbol.dispose]()
  }

  protected made(tensor: Tensor): Parameter {
    this.#made.push(new WeakRef(this.device.keep(tensor)))
    return new Parameter(tensor)
  }
}

/** Leaves weights undefined: for a model that is filled from a checkpoint next. */
export class UnfilledWeights extends Initializer {
  override normal(shape: readonly number[]): Parameter {
    return this.made(this.device.empty(shape))
  }

  override constant(shape: readonly number[]): Parameter {
    return this.normal(shape)
  }

  override zeros(shape: readonly number[]): Parameter {
    return this.normal(shape)
  }
}
