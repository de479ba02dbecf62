import type { UnpackingBudget } from './budget.js'
import { ByteReader } from './byte-reader.js'
import type { ColumnType, ColumnValue } from './column-type.js'
import type { Decompress } from './compression.js'
import { readDeltaLengths, readDeltaStrings, readDeltas } from './delta.js'
import { type PageEncoding, type PageHeader, readPageHeader } from './page-header.js'
import { byteWidth, readByteStreams, readPlain, type StoredValue } from './plain.js'
import { readRuns } from './runs.js'

/** Time that decoding may hold the event loop. */
const TURN_MILLISECONDS = 10

/**
 * The values of a column of one row group [rows], null where one is missing. Other work gets its turn between pages.
 *
 * Whatever the bytes are, time and memory stay in proportion to them and to `rows`.
 *
 * @param bytes the column's pages
 * @throws RangeError for bytes that are not pages of exactly `rows` values
 */
export async function readColumnChunk(
  bytes: Uint8Array,
  column: ColumnType,
  rows: number,
  decompress: Decompress,
  budget: UnpackingBudget,
): Promise<ColumnValue[]> {
  const reader = new ByteReader(bytes)
  const pages = new PageReader(column, decompress, budget)
  const values: ColumnValue[] = []
  let turnEnds = performance.now() + TURN_MILLISECONDS
  while (reader.left > 0) {
    const header = readPageHeader(reader)
    const body = reader.take(header.compressedSize)
    if (header.kind === 'dictionary') pages.readDictionary(header, body)
    else if (header.kind !== 'index') {
      if (header.count > rows - values.length) throw new RangeError('a column in it has more values than rows')
      for (const value of pages.read(header, body)) values.push(value)
    }
    if (performance.now() > turnEnds) {
      await new Promise(setImmediate)
      turnEnds = performance.now() + TURN_MILLISECONDS
    }
  }
  if (values.length < rows) throw new RangeError('a column in it has fewer values than rows')
  return values
}

/** Decodes the pages of one column, whose dictionary comes first where there is one. */
class PageReader {
  #dictionary: ColumnValue[] | undefined

  constructor(
    private readonly column: ColumnType,
    private readonly decompress: Decompress,
    private readonly budget: UnpackingBudget,
  ) {}

  readDictionary({ uncompressedSize, count }: PageHeader & { kind: 'dictionary' }, body: Uint8Array): void {
    if (this.#dictionary !== undefined) throw new RangeError('a column in it has two dictionaries')
    const reader = new ByteReader(this.#unpack(body, uncompressedSize))
    this.#dictionary = readPlain(reader, this.column, count).map(this.column.meaningOf)
  }

  read(header: PageHeader & { kind: 'data' | 'data-v2' }, body: Uint8Array): ColumnValue[] {
    const { optional } = this.column
    const { count, encoding } = header
    if (header.kind === 'data') {
      const reader = new ByteReader(this.#unpack(body, header.uncompressedSize))
      if (optional && header.levels !== 'RLE') {
        throw new RangeError('a page in it has levels of an encoding that is not read')
      }
      const present = optional ? readRuns(new ByteReader(reader.take(reader.uint32())), 1, count) : undefined
      return this.#values(reader, encoding, count, present)
    }
    const levels = new ByteReader(body)
    levels.take(header.repetitionBytes)
    const definitions = levels.take(header.definitionBytes)
    const present = optional ? readRuns(new ByteReader(definitions), 1, count) : undefined
    const size = header.uncompressedSize - levels.position
    const rest = levels.take(levels.left)
    return this.#values(new ByteReader(header.compressed ? this.#unpack(rest, size) : rest), encoding, count, present)
  }

  /** @param present 1 for each value that is there, 0 for each that is missing [count]; absent where none may be missing */
  #values(reader: ByteReader, encoding: PageEncoding, count: number, present: Uint32Array | undefined): ColumnValue[] {
    if (present === undefined) return this.#decode(reader, encoding, count)
    const there = present.reduce((sum, one) => sum + one, 0)
    const decoded = this.#decode(reader, encoding, there)
    let next = 0
    return Array.from(present, (one) => (one === 1 ? decoded[next++]! : null))
  }

  #decode(reader: ByteReader, encoding: PageEncoding, count: number): ColumnValue[] {
    if (count === 0) return []
    if (encoding === 'DICTIONARY') return this.#lookUp(readRuns(reader, reader.byte(), count))
    return this.#stored(reader, encoding, count).map(this.column.meaningOf)
  }

  #stored(reader: ByteReader, encoding: PageEncoding, count: number): StoredValue[] {
    const { type } = this.column
    if (encoding === 'PLAIN') return readPlain(reader, this.column, count)
    if (encoding === 'BYTE_STREAM_SPLIT') return readByteStreams(reader, this.column, count)
    if (encoding === 'RLE' && type === 'BOOLEAN') {
      return Array.from(readRuns(new ByteReader(reader.take(reader.uint32())), 1, count), (bit) => bit === 1)
    }
    if (encoding === 'DELTA_BINARY_PACKED') {
      if (type === 'INT64') return readDeltas(reader, 64, count)
      if (type === 'INT32') return readDeltas(reader, 32, count).map(Number)
    }
    if (encoding === 'DELTA_LENGTH_BYTE_ARRAY' && type === 'BYTE_ARRAY') return readDeltaLengths(reader, count)
    if (encoding === 'DELTA_BYTE_ARRAY') {
      const values = readDeltaStrings(reader, count, this.budget)
      if (type === 'BYTE_ARRAY') return values
      if (values.every(({ length }) => length === byteWidth(this.column))) return values
    }
    throw new RangeError('a page in it has an encoding that its type cannot have')
  }

  #lookUp(indices: Uint32Array): ColumnValue[] {
    const dictionary = this.#dictionary
    if (dictionary === undefined) throw new RangeError('a page in it refers to a dictionary that is missing')
    return Array.from(indices, (index) => {
      const value = dictionary[index]
      if (value === undefined) throw new RangeError('a page in it refers to an entry that its dictionary does not have')
      return value
    })
  }

  #unpack(body: Uint8Array, size: number): Uint8Array {
    if (!(size >= 0)) throw new RangeError('a page header in it is damaged')
    this.budget.take(size)
    return this.decompress(body, size)
  }
}
