import type { Device } from '../engine/device.js'
import type { DType } from '../engine/dtype.js'
import type { Tensor } from '../engine/tensor.js'

/** A tensor that training may change. Frozen parameters cost nothing in backward and are in no norm. */
export class Parameter {
  /** The full name within its module, e.g. `layers.0.attention.query.weight`; set when a model is assembled. */
  name = ''
  /** Whether training changes it. */
  trainable = true
  /** Factor on the optimizer's learning rate for this parameter. */
  learningRateScale = 1
  /** Sum of (clipped) gradients of the step under way, made on first use. */
  #gradient: Tensor | undefined
  /** The weights rounded for products with bfloat16 activations, and the contents they are of. */
  #rounded: { readonly tensor: Tensor; of: string } | undefined

  constructor(readonly tensor: Tensor) {}

  get shape(): readonly number[] {
    return this.tensor.shape
  }

  get size(): number {
    return this.tensor.size
  }

  get device(): Device {
    return this.tensor.device
  }

  /** The gradient buffer, zero at the start of a step: sinks add to it, optimizers read and clear it. */
  get gradient(): Tensor {
    this.#gradient ??= this.device.keep(this.device.zeros(this.shape))
    return this.#gradient
  }

  /** The weights as `dtype`: themselves, or a rounded copy that is renewed once they have changed. */
  as(dtype: DType): Tensor {
    if (dtype === this.tensor.dtype) return this.tensor
    this.#rounded ??= { tensor: this.device.keep(this.device.empty(this.shape, { dtype })), of: '' }
    // An op that failed may have been the one that renewed the copy.
    const contents = `${this.tensor.version} ${this.device.failures}`
    if (this.#rounded.of !== contents) {
      this.device.run('cast', { x: this.tensor, y: this.#rounded.tensor, size: this.size })
      this.#rounded.of = contents
    }
    return this.#rounded.tensor
  }

  freeze(): this {
    this.trainable = false
    return this
  }

  [Symbol.dispose](): void {
    this.#gradient?.[Symbol.dispose]()
    this.#rounded?.tensor[Symbol.dispose]()
    this.tensor[Symbol.dispose]()
  }
}
