/** Longest variable-length integer: 64 bits, 7 in a byte. */
const LONGEST_INTEGER = 10

/** Reads bytes one after another, and never past their end. */
export class ByteReader {
  readonly bytes: Buffer
  position = 0

  constructor(bytes: Uint8Array) {
    this.bytes = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  }

  get left(): number {
    return this.bytes.length - this.position
  }

  byte(): number {
    if (this.position >= this.bytes.length) throw new RangeError('a page ends too early')
    return this.bytes[this.position++]!
  }

  /** The next bytes, as a view. */
  take(length: number): Buffer {
    if (!(length >= 0 && length <= this.left)) throw new RangeError('a page ends too early')
    this.position += length
    return this.bytes.subarray(this.position - length, this.position)
  }

  /** Four bytes, the lowest first. */
  uint32(): number {
    if (this.left < 4) throw new RangeError('a page ends too early')
    this.position += 4
    return this.bytes.readUInt32LE(this.position - 4)
  }

  /** An unsigned integer of variable length; above 2^53 rounded. */
  varint(): number {
    let value = 0
    for (let i = 0; i < LONGEST_INTEGER; i++) {
      const byte = this.byte()
      value += (byte & 0x7f) * 2 ** (7 * i)
      if (byte < 0x80) return value
    }
    throw new RangeError('an integer in it is too long')
  }

  /** A signed integer of variable length: zigzag, 64 bits. */
  zigzag(): bigint {
    let value = 0n
    for (let i = 0n; i < LONGEST_INTEGER; i++) {
      const byte = this.byte()
      value |= BigInt(byte & 0x7f) << (7n * i)
      if (byte < 0x80) return BigInt.asIntN(64, (value >> 1n) ^ -(value & 1n))
    }
    throw new RangeError('an integer in it is too long')
  }
}
