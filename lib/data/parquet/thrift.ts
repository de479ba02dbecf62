import type { ByteReader } from './byte-reader.js'

/** A struct of the Thrift compact protocol: its fields by number. */
export type ThriftStruct = ReadonlyMap<number, ThriftValue>

export type ThriftValue = number | boolean | Uint8Array | ThriftStruct | readonly ThriftValue[]

/** Types of the compact protocol. A truth value is its own type. */
const Type = {
  stop: 0,
  yes: 1,
  no: 2,
  byte: 3,
  int16: 4,
  int32: 5,
  int64: 6,
  double: 7,
  binary: 8,
  list: 9,
  struct: 12,
}

/** Deeper than any header goes. */
const DEEPEST = 16

/** Reads a struct; numbers above 2^53 are rounded. */
export function readStruct(reader: ByteReader, depth = 0): ThriftStruct {
  if (depth > DEEPEST) throw new RangeError('a page header in it is damaged')
  const fields = new Map<number, ThriftValue>()
  for (let id = 0; ; ) {
    const head = reader.byte()
    const type = head & 0x0f
    if (type === Type.stop) return fields
    id = head >> 4 === 0 ? readInteger(reader) : id + (head >> 4)
    fields.set(id, type === Type.yes || type === Type.no ? type === Type.yes : readValue(reader, type, depth))
  }
}

function readValue(reader: ByteReader, type: number, depth: number): ThriftValue {
  switch (type) {
    case Type.yes:
    case Type.no:
      return reader.byte() === Type.yes
    case Type.byte:
      return reader.byte()
    case Type.int16:
    case Type.int32:
    case Type.int64:
      return readInteger(reader)
    case Type.double:
      return reader.take(8)
    case Type.binary:
      return reader.take(reader.varint())
    case Type.list: {
      const head = reader.byte()
      const length = head >> 4 === 15 ? reader.varint() : head >> 4
      if (length > reader.left) throw new RangeError('a page ends too early')
      return Array.from({ length }, () => readValue(reader, head & 0x0f, depth + 1))
    }
    case Type.struct:
      return readStruct(reader, depth + 1)
    default:
      throw new RangeError('a page header in it is damaged')
  }
}

function readInteger(reader: ByteReader): number {
  const folded = reader.varint()
  return folded % 2 === 0 ? folded / 2 : -(folded + 1) / 2
}
