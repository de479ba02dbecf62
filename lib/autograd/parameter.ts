import type { Device } from '../engine/device.js'
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

  freeze(): this {
    this.trainable = false
    return this
  }

  [Symbol.dispose](): void {
    this.#gradient?.[Symbol.dispose]()
    this.tensor[Symbol.dispose]()
  }
}
