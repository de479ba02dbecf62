import type { ParquetType } from 'hyparquet'
import type { ByteReader } from './byte-reader.js'

/** A value as it is stored. */
export type StoredValue = boolean | number | bigint | Buffer

/** How a column's values are stored. */
export interface StoredType {
  readonly type: ParquetType
  /** Bytes of a value of fixed length. */
  readonly typeLength?: number
}

/** Bytes of each value, for the types that have a fixed number of whole bytes. */
export function byteWidth({ type, typeLength = 0 }: StoredType): number | undefined {
  if (type === 'INT32' || type === 'FLOAT') return 4
  if (type === 'INT64' || type === 'DOUBLE') return 8
  return type === 'FIXED_LEN_BYTE_ARRAY' && typeLength > 0 ? typeLength : undefined
}

/** Reads `count` values that stand one after another. */
export function readPlain(reader: ByteReader, stored: StoredType, count: number): StoredValue[] {
  if (stored.type === 'BYTE_ARRAY') {
    if (count * 4 > reader.left) throw new RangeError('a page ends too early')
    return Array.from({ length: count }, () => reader.take(reader.uint32()))
  }
  if (stored.type === 'BOOLEAN') {
    const bytes = reader.take(Math.ceil(count / 8))
    return Array.from({ length: count }, (_, i) => ((bytes[Math.floor(i / 8)]! >> (i % 8)) & 1) === 1)
  }
  const width = byteWidth(stored)
  if (width === undefined) throw new RangeError(`its ${stored.type} values are not read`)
  return fixedWidth(reader.take(count * width), stored.type, width)
}

/** Reads `count` values whose first bytes stand together, then their second ones, and so on. */
export function readByteStreams(reader: ByteReader, stored: StoredType, count: number): StoredValue[] {
  const width = byteWidth(stored)
  if (width === undefined) throw new RangeError('a page in it has an encoding that its type cannot have')
  const streams = reader.take(count * width)
  const bytes = Buffer.alloc(streams.length)
  for (let i = 0; i < bytes.length; i++) bytes[(i % count) * width + Math.floor(i / count)] = streams[i]!
  return fixedWidth(bytes, stored.type, width)
}

function fixedWidth(bytes: Buffer, type: ParquetType, width: number): StoredValue[] {
  const read: Partial<Record<ParquetType, (at: number) => StoredValue>> = {
    INT32: (at) => bytes.readInt32LE(at),
    INT64: (at) => bytes.readBigInt64LE(at),
    FLOAT: (at) => bytes.readFloatLE(at),
    DOUBLE: (at) => bytes.readDoubleLE(at),
  }
  const valueAt = read[type] ?? ((at) => bytes.subarray(at, at + width))
  return Array.from({ length: bytes.length / width }, (_, i) => valueAt(i * width))
}
