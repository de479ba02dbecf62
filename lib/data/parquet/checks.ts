import type { ColumnChunk, ColumnMetaData, FileMetaData, SchemaTree } from 'hyparquet'

/** Rows that any file may have. */
const ROWS_AT_LEAST = 2 ** 20

/** Rows that each byte of a larger file may stand for: repeated values take little, but texts differ. */
const ROWS_PER_BYTE = 16

/** The bytes of a column of one row group: from `start` to before `end`. */
export interface ByteRange {
  readonly start: number
  readonly end: number
}

/** Where the pages of a column of one row group are. */
export function chunkRange(chunk: ColumnMetaData): ByteRange {
  const data = sizeOf(chunk.data_page_offset)
  const dictionary = chunk.dictionary_page_offset === undefined ? 0 : sizeOf(chunk.dictionary_page_offset)
  const start = dictionary > 0 && dictionary < data ? dictionary : data
  return { start, end: start + sizeOf(chunk.total_compressed_size) }
}

/**
 * Holds a file's numbers of rows, types and places against each other.
 *
 * @param bytes of the file, before its metadata
 * @throws RangeError for what does not fit together
 */
export function requireSound(
  { num_rows: all, row_groups: groups }: FileMetaData,
  schema: SchemaTree,
  bytes: number,
): void {
  const leaves = leavesOf(schema)
  const ranges: ByteRange[] = []
  let rows = 0
  for (const group of groups) {
    if (group.columns.length !== leaves.length)
      throw new RangeError('a row group in it has other columns than the file')
    const found = group.columns.map((chunk, i) => requireChunk(chunk, leaves[i]!, group.num_rows))
    ranges.push(...found.filter(({ start, end }) => end > start))
    rows += sizeOf(group.num_rows)
  }
  if (rows !== sizeOf(all)) throw new RangeError('numbers of rows in it do not fit together')
  if (rows > ROWS_AT_LEAST + ROWS_PER_BYTE * bytes) throw new RangeError('it has more rows than its bytes can hold')
  requireApart(ranges, bytes)
}

function leavesOf(tree: SchemaTree): SchemaTree[] {
  return tree.children.flatMap((child) => (child.children.length === 0 ? [child] : leavesOf(child)))
}

function requireChunk(
  { file_path: elsewhere, meta_data: chunk }: ColumnChunk,
  leaf: SchemaTree,
  rows: bigint,
): ByteRange {
  if (elsewhere) throw new RangeError('its data are in another file')
  if (chunk === undefined) throw new RangeError('it is encrypted')
  const { path, element } = leaf
  const samePath =
    path.length === chunk.path_in_schema.length && path.every((name, i) => name === chunk.path_in_schema[i])
  if (!samePath || chunk.type !== element.type) {
    throw new RangeError('a row group in it has columns of another name or type than the file')
  }
  const flat = path.length === 1 && element.repetition_type !== 'REPEATED'
  if (flat && chunk.num_values !== rows) throw new RangeError('numbers of rows in it do not fit together')
  return chunkRange(chunk)
}

function requireApart(ranges: readonly ByteRange[], bytes: number): void {
  let end = 0
  for (const range of [...ranges].sort((a, b) => a.start - b.start)) {
    if (range.start < end) throw new RangeError('two columns in it have the same bytes')
    end = range.end
  }
  if (end > bytes) throw new RangeError('it names bytes it does not have')
}

function sizeOf(value: bigint): number {
  if (typeof value === 'bigint' && value >= 0n && value <= Number.MAX_SAFE_INTEGER) return Number(value)
  throw new RangeError('numbers in it are damaged')
}
