import { DpMoeError, invalid } from '../errors.js'
import { addon } from './addon.js'
import { roundToBfloat16, widenBfloat16 } from './bfloat16.js'
import type { Device } from './device.js'
import { type DType, sizeOf, type TypedArray } from './dtype.js'

/** Which privacy unit each row belongs to; lib/autograd gives it meaning. */
export interface RowLayout {
  readonly name: string
}

/**
 * Memory on a device: a handle with a shape. Contents change in the order in which ops are enqueued.
 *
 * Dispose it, or make it inside `device.scope`; one that is simply dropped is freed when the garbage collector finds it,
 * which is never inside a synchronous loop.
 */
export class Tensor implements Disposable {
  readonly device: Device
  readonly shape: readonly number[]
  readonly dtype: DType
  readonly layout: RowLayout | undefined
  /** Number of elements. */
  readonly size: number
  #handle: number
  #version = 0

  /** Takes over `handle`; use `device.empty`, `device.zeros` or `device.tensor` to make tensors. */
  constructor(device: Device, handle: number, shape: readonly number[], dtype: DType, layout?: RowLayout) {
    this.device = device
    this.#handle = handle
    this.shape = shape
    this.dtype = dtype
    this.layout = layout
    this.size = sizeOf(shape)
    device.track(this, handle)
  }

  /** The engine's name for this memory. Throws DISPOSED after `[Symbol.dispose]`. */
  get handle(): number {
    if (this.disposed) throw new DpMoeError('DISPOSED', `The ${this} was used after it was disposed`)
    return this.#handle
  }

  /** Grows with every write through this tensor that is enqueued; writes through another one over its memory do not count. */
  get version(): number {
    return this.#version
  }

  /** For Device: an op that writes this tensor was enqueued. */
  touch(): void {
    this.#version++
  }

  get disposed(): boolean {
    return this.#handle === 0 || this.device.closed
  }

  /** The values (of a bfloat16 tensor as float32), once everything enqueued before has run. Rejects with the error of an earlier op that failed. */
  async data(): Promise<TypedArray> {
    const values = await this.device.counted(addon().download(this.handle))
    return values instanceof Uint16Array ? widenBfloat16(values) : values
  }

  /** Replaces the elements from `offset` on; float32 values are rounded for a bfloat16 tensor. The array is read at once and may change afterwards. */
  write(data: TypedArray, offset = 0): this {
    this.touch()
    const rounds = this.dtype === 'bfloat16' && data instanceof Float32Array
    addon().upload(this.handle, rounds ? roundToBfloat16(data) : data, offset)
    return this
  }

  /** Sets every element to `value`. */
  fill(value: number): this {
    this.touch()
    addon().fill(this.handle, value)
    return this
  }

  /** Copies all elements of a tensor of the same dtype and size. */
  copyFrom(source: Tensor): this {
    if (source.size !== this.size) {
      throw new DpMoeError('SHAPE_MISMATCH', `copyFrom: ${invalid('source', `${this.size} elements`, source.size)}`)
    }
    this.touch()
    addon().copy(this.handle, 0, source.handle, 0, this.size)
    return this
  }

  /** `count` elements from element `offset` on as a tensor of one dimension over the same memory. */
  slice(offset: number, count: number): Tensor {
    return new Tensor(this.device, addon().alias(this.handle, offset, count), [count], this.dtype)
  }

  /** The same memory under another shape of the same size. The layout is dropped: rows are not what they were. */
  reshape(shape: readonly number[]): Tensor {
    if (sizeOf(shape) !== this.size) {
      throw new DpMoeError('SHAPE_MISMATCH', `reshape: ${invalid('shape', `${this.size} elements`, `[${shape}]`)}`)
    }
    return new Tensor(this.device, addon().alias(this.handle, 0, this.size), shape, this.dtype)
  }

  /** The same memory with a row layout (or none). */
  withLayout(layout: RowLayout | undefined): Tensor {
    return new Tensor(this.device, addon().alias(this.handle, 0, this.size), this.shape, this.dtype, layout)
  }

  /** Frees the handle; the memory goes back once nothing else is over it. Doing so twice is harmless. */
  [Symbol.dispose](): void {
    if (this.disposed) return
    const handle = this.#handle
    this.#handle = 0
    this.device.untrack(this)
    addon().free(handle)
  }

  toString(): string {
    return `${this.dtype} tensor [${this.shape.join(', ')}]`
  }
}
