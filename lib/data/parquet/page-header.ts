import type { ByteReader } from './byte-reader.js'
import { readStruct, type ThriftStruct } from './thrift.js'

/** How the values of a page are written; those without a name here are not read. */
export type PageEncoding =
  | 'PLAIN'
  | 'DICTIONARY'
  | 'RLE'
  | 'DELTA_BINARY_PACKED'
  | 'DELTA_LENGTH_BYTE_ARRAY'
  | 'DELTA_BYTE_ARRAY'
  | 'BYTE_STREAM_SPLIT'

const ENCODINGS: Record<number, PageEncoding> = {
  0: 'PLAIN',
  2: 'DICTIONARY',
  3: 'RLE',
  5: 'DELTA_BINARY_PACKED',
  6: 'DELTA_LENGTH_BYTE_ARRAY',
  7: 'DELTA_BYTE_ARRAY',
  8: 'DICTIONARY',
  9: 'BYTE_STREAM_SPLIT',
}

interface Sizes {
  /** Bytes in the file, after the header. */
  readonly compressedSize: number
  readonly uncompressedSize: number
}

/** A page's header; of a data page of the second kind, levels come first and are not compressed. */
export type PageHeader = Sizes &
  (
    | { readonly kind: 'index' }
    | { readonly kind: 'dictionary'; readonly count: number }
    | {
        readonly kind: 'data'
        readonly count: number
        readonly encoding: PageEncoding
        /** How levels are written; of no meaning where there are none. */
        readonly levels: PageEncoding | undefined
      }
    | {
        readonly kind: 'data-v2'
        readonly count: number
        readonly encoding: PageEncoding
        readonly repetitionBytes: number
        readonly definitionBytes: number
        readonly compressed: boolean
      }
  )

/** Reads a page's header and leaves the reader behind it. */
export function readPageHeader(reader: ByteReader): PageHeader {
  const header = readStruct(reader)
  const sizes = { uncompressedSize: sizeIn(header, 2), compressedSize: sizeIn(header, 3) }
  switch (sizeIn(header, 1)) {
    case 0: {
      const data = structIn(header, 5)
      const levels = ENCODINGS[sizeIn(data, 3)]
      return { ...sizes, kind: 'data', count: sizeIn(data, 1), encoding: encodingIn(data, 2), levels }
    }
    case 1:
      return { ...sizes, kind: 'index' }
    case 2: {
      const dictionary = structIn(header, 7)
      return { ...sizes, kind: 'dictionary', count: sizeIn(dictionary, 1) }
    }
    case 3: {
      const data = structIn(header, 8)
      return {
        ...sizes,
        kind: 'data-v2',
        count: sizeIn(data, 1),
        encoding: encodingIn(data, 4),
        definitionBytes: sizeIn(data, 5),
        repetitionBytes: sizeIn(data, 6),
        compressed: data.get(7) !== false,
      }
    }
    default:
      throw new RangeError('a page in it is of an unknown type')
  }
}

function sizeIn(struct: ThriftStruct, id: number): number {
  const value = struct.get(id)
  if (typeof value === 'number' && value >= 0 && value < 2 ** 31) return value
  throw new RangeError('a page header in it is damaged')
}

function structIn(struct: ThriftStruct, id: number): ThriftStruct {
  const value = struct.get(id)
  if (value instanceof Map) return value
  throw new RangeError('a page header in it is damaged')
}

function encodingIn(struct: ThriftStruct, id: number): PageEncoding {
  const encoding = ENCODINGS[sizeIn(struct, id)]
  if (encoding === undefined) throw new RangeError('a page in it has an encoding that is not read')
  return encoding
}
