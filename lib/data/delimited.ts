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

const COMMON: Options = {
  info: true,
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
 * @throws DpMoeError naming file and line for bad quoting, or a row whose number of fields is not the header's
 */
export async function* readDelimited(source: TextSource, dialect: 'csv' | 'tsv'): AsyncGenerator<DelimitedRow> {
  const parser = parse(DIALECTS[dialect])
  // The pipeline hands a reading error on to the parser, whose iterator throws it.
  const piped = pipeline(Readable.from(bytesOf(source)), parser).catch(() => {})
  let columns: number | undefined
  let nextLine = 1
  let emptyLines = 0
  try {
    for await (const { record, info } of parser as AsyncIterable<{ record: string[]; info: Info }>) {
      const line = nextLine + info.empty_lines - emptyLines
      nextLine = info.lines + 1
      emptyLines = info.empty_lines
      columns ??= record.length
      if (record.length !== columns) throw wrongFieldCount(source, line, record.length, columns, dialect)
      yield { fields: record, line }
    }
  } catch (error) {
    throw error instanceof CsvError ? quotingError(source, error, nextLine) : error
  } finally {
    parser.destroy()
    await piped
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

function quotingError(source: TextSource, error: CsvError, firstLine: number): Error {
  const remedy = 'Put the whole field in double quotes, and double each quote inside it'
  if (error.code === 'CSV_QUOTE_NOT_CLOSED') {
    return dataError(
      source,
      firstLine,
      `a double quote is opened after this line begins and never closed. ${remedy}`,
      error,
    )
  }
  const line = typeof error.lines === 'number' ? error.lines : firstLine
  return dataError(source, line, `a double quote stands where none may be. ${remedy}`, error)
}
