import { open } from 'node:fs/promises'
import type { AsyncBuffer, FileMetaData } from 'hyparquet'
import { z } from 'zod'
import { DpMoeError } from '../errors.js'
import { readFully, withFileErrors } from '../files.js'
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

/** A Parquet file open for reading. Row groups are read one after another. */
export class ParquetFile implements AsyncDisposable {
  /** Names of the columns. */
  readonly columns: readonly string[]

  private constructor(
    readonly path: string,
    readonly metadata: FileMetaData,
    private readonly buffer: AsyncBuffer,
    private readonly close: () => Promise<void>,
    columns: readonly string[],
  ) {
    this.columns = columns
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
      // The reader asks for several pieces at once, and stops at the first that fails without waiting for the others.
      const slice = (start: number, end = byteLength) => {
        const piece = withFileErrors('read', path, () => read(start, end))
        piece.catch(() => {})
        return piece
      }
      const buffer = { byteLength, slice }
      const { metadata, columns } = await asParquet(path, async () => {
        const metadata = await parquetMetadataAsync(buffer)
        requireRows(metadata)
        return { metadata, columns: parquetSchema(metadata).children.map(({ element }) => element.name) }
      })
      return new ParquetFile(path, metadata, buffer, () => handle.close(), columns)
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

  /** The rows, with some of the columns. */
  async *rows(columns: readonly string[]): AsyncGenerator<ParquetRow> {
    const [{ parquetReadObjects }, { compressors }] = await Promise.all([
      import('hyparquet'),
      import('hyparquet-compressors'),
    ])
    const { buffer: file, metadata } = this
    let row = 0
    for (const group of metadata.row_groups) {
      const [rowStart, rowEnd] = [row, row + Number(group.num_rows)]
      const read = () =>
        parquetReadObjects({ file, metadata, compressors, columns: [...new Set(columns)], rowStart, rowEnd })
      for (const value of await asParquet(this.path, read)) yield { value, row: ++row }
    }
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }
}

/** The reader makes as many rows as a group says it has: that must be what the file and the group's columns say, too. */
function requireRows({ num_rows: all, row_groups: groups, schema }: FileMetaData): void {
  const repeated = new Set(schema.filter((one) => one.repetition_type === 'REPEATED').map(({ name }) => name))
  const isFlat = (path: readonly string[]) => path.length === 1 && !repeated.has(path[0]!)
  for (const { num_rows: rows, columns } of groups) {
    const other = columns.find(({ meta_data: of }) => of && isFlat(of.path_in_schema) && of.num_values !== rows)
    if (rows < 0n || other) throw new RangeError('numbers of rows in it do not fit together')
  }
  if (groups.reduce((sum, { num_rows: rows }) => sum + rows, 0n) === all) return
  throw new RangeError('numbers of rows in it do not fit together')
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
