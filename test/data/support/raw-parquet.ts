/** Parquet files written byte by byte, so that every number in them can be a wrong one. */

/** A struct of Thrift's compact protocol by field number: numbers are 32 bits, bigints 64. */
interface Struct {
  readonly [id: number]: Value
}

type Value = number | bigint | boolean | string | Uint8Array | readonly Value[] | Struct

export const Type = { boolean: 0, int32: 1, int64: 2, float: 4, double: 5, bytes: 6, fixed: 7 } as const
export const Encoding = {
  plain: 0,
  rle: 3,
  delta: 5,
  deltaLength: 6,
  deltaStrings: 7,
  dictionary: 8,
  bitPacked: 4,
} as const
export const UTF8 = 0
export const DECIMAL = 5

export interface RawColumn {
  name: string
  type: number
  /** 0 required (the default), 1 optional, 2 repeated. */
  repetition?: number
  converted?: number
  /** A logical type as the format has it. */
  logical?: Struct
  scale?: number
  precision?: number
  typeLength?: number
  /** Header and body of each page. */
  pages: readonly Uint8Array[]
  values: number
  /** The type that the row group claims; default the true one. */
  claimedType?: number
  codec?: number
  /** Whether the first page is a dictionary. */
  dictionary?: boolean
  /** Columns inside it, in place of pages of its own. */
  children?: readonly RawColumn[]
}

/** A file of row groups of `rows` rows; with `times` several groups claim the same bytes. */
export function rawParquet(columns: readonly RawColumn[], rows: number, times = 1): Buffer {
  const parts: Uint8Array[] = [Buffer.from('PAR1')]
  const sizeOf = (pieces: readonly Uint8Array[]) => pieces.reduce((sum, { length }) => sum + length, 0)
  const chunkOf = (column: RawColumn, path: readonly string[]): Struct[] => {
    const here = [...path, column.name]
    if (column.children) return column.children.flatMap((child) => chunkOf(child, here))
    const start = sizeOf(parts)
    parts.push(...column.pages)
    const size = BigInt(sizeOf(column.pages))
    const first = column.dictionary ? column.pages[0]!.length : 0
    const metadata: Record<number, Value> = {
      1: column.claimedType ?? column.type,
      2: [0],
      3: here,
      4: column.codec ?? 0,
      5: BigInt(column.values),
      6: size,
      7: size,
      9: BigInt(start + first),
    }
    if (column.dictionary) metadata[11] = BigInt(start)
    return [{ 2: BigInt(start), 3: metadata }]
  }
  const chunks = columns.flatMap((column) => chunkOf(column, []))
  const footer = struct({
    1: 1,
    2: [{ 4: 'schema', 5: columns.length }, ...columns.flatMap(schemaOf)],
    3: BigInt(rows * times),
    4: Array.from({ length: times }, () => ({ 1: chunks, 2: 1n, 3: BigInt(rows) })),
  })
  return Buffer.concat([...parts, footer, uint32(footer.length), Buffer.from('PAR1')])
}

function schemaOf(column: RawColumn): Struct[] {
  const { name, type, typeLength, repetition = 0, converted, scale, precision, logical, children } = column
  const element: Record<number, Value> = { 3: repetition, 4: name }
  if (children === undefined) element[1] = type
  else element[5] = children.length
  for (const [id, value] of [
    [2, typeLength],
    [6, converted],
    [7, scale],
    [8, precision],
    [10, logical],
  ] as const) {
    if (value !== undefined) element[id] = value
  }
  return [element, ...(children ?? []).flatMap(schemaOf)]
}

/** A data page of the first kind; levels are of the encoding `levels`, where there are some. */
export function page(
  values: number,
  body: Uint8Array,
  encoding: number = Encoding.plain,
  { size = body.length, levels = Encoding.rle as number } = {},
): Buffer {
  const header = { 1: values, 2: encoding, 3: levels, 4: levels }
  return Buffer.concat([struct({ 1: 0, 2: size, 3: body.length, 5: header }), body])
}

/** A data page of the second kind, with definition levels in front where there are some. */
export function pageV2(values: number, body: Uint8Array, encoding: number, levels = new Uint8Array(0)): Buffer {
  const bytes = Buffer.concat([levels, body])
  const header = { 1: values, 2: 0, 3: values, 4: encoding, 5: levels.length, 6: 0, 7: false }
  return Buffer.concat([struct({ 1: 3, 2: bytes.length, 3: bytes.length, 8: header }), bytes])
}

export function dictionaryPage(values: number, body: Uint8Array): Buffer {
  return Buffer.concat([struct({ 1: 2, 2: body.length, 3: body.length, 7: { 1: values, 2: 0 } }), body])
}

/** Byte strings, each behind its length. */
export function plainStrings(values: readonly (string | Uint8Array)[]): Buffer {
  return Buffer.concat(values.map((value) => Buffer.from(value)).flatMap((bytes) => [uint32(bytes.length), bytes]))
}

export function plainInt64(values: readonly bigint[]): Buffer {
  return Buffer.from(BigInt64Array.from(values).buffer)
}

/** Bytes behind their number, as levels stand in a page of the first kind. */
export function lengthAndBytes(bytes: readonly number[]): Buffer {
  return Buffer.concat([uint32(bytes.length), Uint8Array.from(bytes)])
}

/** An unsigned integer of variable length. */
export function varint(value: number | bigint): number[] {
  const rest = BigInt(value)
  return rest < 128n ? [Number(rest)] : [Number(rest & 127n) | 128, ...varint(rest >> 7n)]
}

function uint32(value: number): Uint8Array {
  return new Uint8Array(Uint32Array.of(value).buffer)
}

function struct(fields: Struct): Buffer {
  const bytes: number[] = []
  let last = 0
  for (const [key, value] of Object.entries(fields)) {
    const id = Number(key)
    bytes.push(((id - last) << 4) | kindOf(value), ...(typeof value === 'boolean' ? [] : encoded(value)))
    last = id
  }
  return Buffer.from([...bytes, 0])
}

function kindOf(value: Value): number {
  if (typeof value === 'boolean') return value ? 1 : 2
  if (typeof value === 'number') return 5
  if (typeof value === 'bigint') return 6
  if (typeof value === 'string' || value instanceof Uint8Array) return 8
  return Array.isArray(value) ? 9 : 12
}

function encoded(value: Exclude<Value, boolean>): number[] {
  if (typeof value === 'number' || typeof value === 'bigint') {
    const integer = BigInt(value)
    return varint(integer >= 0n ? integer * 2n : -integer * 2n - 1n)
  }
  if (typeof value === 'string' || value instanceof Uint8Array) {
    const bytes = Buffer.from(value)
    return [...varint(bytes.length), ...bytes]
  }
  if (!Array.isArray(value)) return [...struct(value as Struct)]
  const list = value as readonly Exclude<Value, boolean>[]
  return [0xf0 | (list.length === 0 ? 12 : kindOf(list[0]!)), ...varint(list.length), ...list.flatMap(encoded)]
}
