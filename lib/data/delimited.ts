import { Readable } from 'node:stream'
import { pipeline } from 'node:stream/promises'
import { CsvError, type Info, type Options, parse } from 'csv-parse'
import { dataError, readTextBlocks, type TextSource } from './text-blocks.js'

/** One row of a CSV or TSV file, its header included. */
export interface DelimitedRow {
  fields: string[]
  /** Line number of the row's first line, from 1: a quoted field may span several. */
  line: number
}

/** The package's type wants the row back as it came; what is returned is what the parser hands out. */
type OnRecord = NonNullable<Options['on_record']>

const COMMON: Options = {
  record_delimiter: ['\r\n', '\n'],
  // The number of fields is checked here, so that the message names the line a row starts on.
  relax_column_count: true,
  skip_empty_lines: true,
}

const DIALECTS: Record<'csv' | 'tsv', Options> = {
  csv: { ...COMMON, delimiter: ',' },
  // As GLUE and most TSV files have it: nothing is quoted, and a quotation mark is a character like any other.
  tsv: { ...COMMON, delimiter: '\t', quote: null, escape: null },
}

/**
 * Reads the rows of a CSV (RFC 4180: quotes, doubled quotes, line breaks inside quotes) or TSV (no quoting) source; the
 * first row is the header. Empty lines are skipped.
 *
 * @param limit rows read after the header; what follows is not looked at
 * @throws DpMoeError naming file and line for bad quoting, or a row whose number of fields is not the header's
 */
export async function* readDelimited(
  source: TextSource,
  dialect: 'csv' | 'tsv',
  limit?: number,
): AsyncGenerator<DelimitedRow> {
  const lines = new LineCounter()
  let columns: number | undefined
  // Runs as the parser reads: when an error comes, rows that were not handed out yet have been counted.
  const countRow = (fields: string[], info: Info): DelimitedRow => {
    const line = lines.next(fields, info.empty_lines)
    columns ??= fields.length
    if (fields.length !== columns) throw wrongFieldCount(source, line, fields.length, columns, dialect)
    return { fields, line }
  }
  const last = limit === undefined ? {} : { to: limit + 1 }
  const parser = parse({ ...DIALECTS[dialect], ...last, on_record: countRow as unknown as OnRecord })
  // The pipeline hands a reading error on to the parser, whose iterator throws it.
  const piped = pipeline(Readable.from(bytesOf(source)), parser).catch(() => {})
  try {
    yield* parser as AsyncIterable<DelimitedRow>
  } catch (error) {
    if (!(error instanceof CsvError)) throw error
    throw quotingError(source, error, lines.next([], Number(error.empty_lines)))
  } finally {
    parser.destroy()
    await piped
  }
}

/** Finds the line a row starts on; the parser's own count takes a carriage return inside quotes for a line. */
class LineCounter {
  #next = 1
  #emptyLines = 0

  /** @param emptyLines empty lines skipped so far, those before this row included */
  next(fields: readonly string[], emptyLines: number): number {
    const line = this.#next + emptyLines - this.#emptyLines
    this.#next = line + 1
    this.#emptyLines = emptyLines
    for (const field of fields) {
      for (let at = field.indexOf('\n'); at >= 0; at = field.indexOf('\n', at + 1)) this.#next++
    }
    return line
  }
}

async function* bytesOf(source: TextSource): AsyncGenerator<Buffer> {
  for await (const block of readTextBlocks(source)) yield block.bytes
}

function wrongFieldCount(source: TextSource, line: number, fields: number, columns: number, dialect: 'csv' | 'tsv') {
  const remedy =
    dialect === 'csv'
      ? 'Put texts that hold commas or line breaks in double quotes'
      : 'Remove tabs and line breaks from the texts'
  return dataError(source, line, `the row has ${fields} fields, and the header has ${columns}. ${remedy}`)
}

function quotingError(source: TextSource, error: CsvError, line: number): Error {
  const problem =
    error.code === 'CSV_QUOTE_NOT_CLOSED'
      ? 'a double quote is opened in the row that starts here and never closed'
      : 'the row that starts here has a double quote where none may be'
  const remedy = 'Put the whole field in double quotes, and double each quote inside it'
  return dataError(source, line, `${problem}. ${remedy}`, error)
}
