/** A typed array that grows: a plain array takes eight bytes or more an entry and slows the collector down. */
export class GrowingArray<T extends Int32Array | Float32Array> {
  #values: T
  #length = 0
  readonly #create: (length: number) => T

  /** @param create makes an array of zeros, such as `(length) => new Int32Array(length)` */
  constructor(create: (length: number) => T) {
    this.#create = create
    this.#values = create(256)
  }

  get length(): number {
    return this.#length
  }

  /** Empties the list and keeps its memory. */
  clear(): void {
    this.#length = 0
  }

  push(value: number): void {
    if (this.#length === this.#values.length) this.#reserve(this.#length + 1)
    this.#values[this.#length++] = value
  }

  pushAll(values: T): void {
    if (this.#length + values.length > this.#values.length) this.#reserve(this.#length + values.length)
    this.#values.set(values, this.#length)
    this.#length += values.length
  }

  /** The entries, in memory of their own. */
  toArray(): T {
    return this.#values.slice(0, this.#length) as T
  }

  #reserve(capacity: number): void {
    const grown = this.#create(Math.max(capacity, this.#values.length * 2))
    grown.set(this.#values.subarray(0, this.#length))
    this.#values = grown
  }
}
