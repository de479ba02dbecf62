import { open } from 'node:fs/promises'
import type { AsyncBuffer, ColumnMetaData, FileMetaData, SchemaTree } from 'hyparquet'
import { z } from 'zod'
import { DpMoeError } from '../errors.js'
import { readFully, withFileErrors } from '../files.js'
import { UnpackingBudget } from './parquet/budget.js'
import { chunkRange, requireSound } from './parquet/checks.js'
import { readColumnChunk } from './parquet/column-chunk.js'
import { type ColumnType, type ColumnValue, columnType, NOT_TEXT } from './parquet/column-type.js'
import { decompressor } from './parquet/compression.js'
import { dataError } from './text-blocks.js'

/** A row of a Parquet file, with the columns that were asked for. */
export interface ParquetRow {
  readonly value: Record<string, unknown>
  /** From 1. */
  readonly row: number
}

/** The Hugging Face description of a file's columns. */
const featuresSchema = z.object({
  info: z.object({ features: z.record(z.string(), z.looseObject({ names: z.array(z.string()).optional() })) }),
})

/** A column of a file: its name, its type, and its place among the columns of a row group. */
interface Column extends ColumnType {
  readonly name: string
  readonly place: number
}

/**
 * A Parquet file open for reading. Row groups are read one after another.
 *
 * | in the file | here |
 * |---|---|
 * | numbers of rows, types or places that do not fit together | an error when it is opened |
 * | pages that hold more or fewer values than rows, or lack their dictionary | an error when their group is read |
 * | strings (UTF8, JSON, ENUM) | strings as they are; one that is not UTF-8 or holds a NUL byte is an error that names its row |
 * | integers, decimals without digits after the point | numbers; bigints where they may be large |
 * | truth values, floats, UUIDs | booleans, numbers, strings |
 * | lists, objects, bytes, times, other decimals | an error that names the column |
 */
export class ParquetFile implements AsyncDisposable {
  /** Names of the columns. */
  readonly columns: readonly string[]

  private constructor(
    readonly path: string,
    readonly metadata: FileMetaData,
    private readonly schema: SchemaTree,
    private readonly buffer: AsyncBuffer,
    private readonly close: () => Promise<void>,
  ) {
    this.columns = schema.children.map(({ element }) => element.name)
  }

  /** @throws DpMoeError DATA_FORMAT for a file that is damaged or something else; FILE_NOT_FOUND, FILE_ACCESS */
  static async open(path: string): Promise<ParquetFile> {
    const { parquetMetadataAsync, parquetSchema } = await import('hyparquet')
    const handle = await withFileErrors('read', path, () => open(path, 'r'))
    try {
      const { size: byteLength } = await withFileErrors('read', path, () => handle.stat())
      const read = async (start: number, end: number) => {
        if (!(start >= 0 && start <= end && end <= byteLength)) throw new RangeError('it names bytes it does not have')
        const bytes = new Uint8Array(end - start)
        if ((await readFully(handle, bytes, start)) < bytes.length) throw new RangeError('it became shorter')
        return bytes.buffer
      }
      const slice = (start: number, end = byteLength) => withFileErrors('read', path, () => read(start, end))
      const buffer = { byteLength, slice }
      const { metadata, schema } = await asParquet(path, async () => {
        const metadata = await parquetMetadataAsync(buffer, { geoparquet: false })
        const schema = parquetSchema(metadata)
        requireSound(metadata, schema, byteLength - metadata.metadata_length - 8)
        return { metadata, schema }
      })
      return new ParquetFile(path, metadata, schema, buffer, () => handle.close())
    } catch (error) {
      await handle.close()
      throw error
    }
  }

  /** Class names by number of a column, where the file states them: Hugging Face's ClassLabel. */
  labelNames(column: string): readonly string[] | undefined {
    const text = this.metadata.key_value_metadata?.find(({ key }) => key === 'huggingface')?.value
    if (text === undefined) return undefined
    try {
      return featuresSchema.parse(JSON.parse(text)).info.features[column]?.names
    } catch {
      return undefined
    }
  }

  /**
   * The rows, with some of the columns.
   *
   * @throws DpMoeError DATA_FORMAT for a column that is there twice or of a type that is not read, and for damaged pages
   */
  async *rows(columns: readonly string[]): AsyncGenerator<ParquetRow> {
    const wanted = [...new Set(columns)].map((name) => this.#column(name))
    const budget = new UnpackingBudget(this.buffer.byteLength)
    let row = 0
    for (const { num_rows, columns: chunks } of this.metadata.row_groups) {
      const rows = Number(num_rows)
      const values: ColumnValue[][] = []
      for (const column of wanted) {
        const chunk = chunks[column.place]!.meta_data!
        values.push(await asParquet(this.path, () => this.#read(chunk, column, rows, budget)))
      }
      for (let i = 0; i < rows; i++) {
        row++
        const value: Record<string, unknown> = {}
        for (const [c, { name }] of wanted.entries()) value[name] = this.#checked(values[c]![i]!, name, row)
        yield { value, row }
      }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #column(name: string): Column {
    const index = this.columns.indexOf(name)
    if (this.columns.indexOf(name, index + 1) >= 0) {
      throw dataError(this.path, undefined, `there are two columns '${name}'. Rename one of them`)
    }
    const { element, children } = this.schema.children[index]!
    const type = columnType(element, children.length > 0)
    if (typeof type === 'string') {
      throw dataError(this.path, undefined, `the column '${name}' is ${type}, which is not read. Write it as strings`)
    }
    const before = this.schema.children.slice(0, index)
    return { ...type, name, place: before.reduce((sum, child) => sum + leaves(child), 0) }
  }

  async #read(chunk: ColumnMetaData, column: Column, rows: number, budget: UnpackingBudget): Promise<ColumnValue[]> {
    const { start, end } = chunkRange(chunk)
    const bytes = new Uint8Array(await this.buffer.slice(start, end))
    return readColumnChunk(bytes, column, rows, await decompressor(chunk.codec), budget)
  }

  #checked(value: ColumnValue, column: string, row: number): Exclude<ColumnValue, typeof NOT_TEXT> {
    if (value !== NOT_TEXT) return value
    const message = `'${column}' is not valid UTF-8, or holds a NUL byte. Correct it, or remove the row`
    throw dataError(this.path, row, message)
  }
}

/** Columns of a row group that belong to a column of the file. */
function leaves({ children }: SchemaTree): number {
  return children.length === 0 ? 1 : children.reduce((sum, child) => sum + leaves(child), 0)
}

/** What goes wrong inside the reader is a fault of the file. */
async function asParquet<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    if (error instanceof DpMoeError) throw error
    const reason = error instanceof Error ? error.message : String(error)
    throw dataError(
      path,
      undefined,
      `it cannot be read as Parquet (${reason}). Download or write the file again`,
      error,
    )
  }
}
