import { extname } from 'node:path'
import { DpMoeError, invalid } from '../errors.js'
import { requireInteger } from './checks.js'
import { type DelimitedRow, readDelimited } from './delimited.js'
import { readJsonLines } from './json-lines.js'
import { ParquetFile } from './parquet.js'
import { type DataSource, dataError, sourceName, type TextSource } from './text-blocks.js'

/** JSON Lines; comma-separated (RFC 4180); tab-separated without quoting; Parquet. */
export type DataFormat = 'jsonl' | 'csv' | 'tsv' | 'parquet'

/** A text with its label as the file has it, surrounding white space removed. */
export interface LabelledExample {
  text: string
  label: string
  /** The text that belongs to it, as the file has it; where a target column was asked for. */
  target?: string
  /** Who the text is from, as the file has it; where a group column was asked for. */
  group?: string
  /** Line number in the file, from 1; the header is line 1. Of a Parquet file the row, from 1. */
  line: number
  /** The file it is from, where several were read. */
  file?: string
}

/** A text; its label where a label column was asked for. */
export type Example = Omit<LabelledExample, 'label'> & { label?: string }

export interface ReadOptions {
  /** Name of the column (or JSON key) with the text. */
  text: string
  /** Name of the column (or JSON key) with the label. Without it, examples have no label. */
  label?: string
  /** Name of the column (or JSON key) with a second text, which belongs to the first. Without it, examples have none. */
  target?: string
  /** Name of the column (or JSON key) that says whose the example is. Without it, examples have no group. */
  group?: string
  /** Class names by number: an integer in the label column stands for one of them. Default: as a Parquet file states them. */
  labelNames?: readonly string[]
  /** Default: by the file's extension. */
  format?: DataFormat
  /** Reads no more than this many examples; default all. */
  limit?: number
}

const FORMATS: Record<string, DataFormat> = {
  '.jsonl': 'jsonl',
  '.ndjson': 'jsonl',
  '.csv': 'csv',
  '.tsv': 'tsv',
  '.tab': 'tsv',
  '.parquet': 'parquet',
}

/** Reads a data file whole: {@link streamExamples} in an array. */
export async function readExamples(
  source: DataSource,
  options: ReadOptions & { label: string },
): Promise<LabelledExample[]>
export async function readExamples(source: DataSource, options: ReadOptions): Promise<Example[]>
export async function readExamples(source: DataSource, options: ReadOptions): Promise<Example[]> {
  const examples: Example[] = []
  for await (const example of streamExamples(source, options)) examples.push(example)
  return examples
}

/**
 * Reads examples from a JSON Lines, CSV, TSV or Parquet file, from several files one after another, or from a stream, without
 * holding a file in memory (of a Parquet file one row group).
 *
 * Labels may be names or numbers (JSON: also true and false). An empty text is allowed.
 *
 * @throws DpMoeError with code DATA_FORMAT, FILE_NOT_FOUND or FILE_ACCESS: a message that names the file, the line, what
 *   is wrong (a missing column or label, no rows, not JSON, not UTF-8, NUL bytes, bad quoting) and what to do
 */
export async function* streamExamples(source: DataSource, options: ReadOptions): AsyncGenerator<Example> {
  const { limit } = options
  if (limit !== undefined) requireInteger('limit', limit, 1, Number.MAX_SAFE_INTEGER)
  let count = 0
  for await (const example of Array.isArray(source)
    ? fromFiles(source, options)
    : fromSource(source as TextSource, options)) {
    yield example
    if (++count === limit) return
  }
}

async function* fromFiles(files: readonly string[], options: ReadOptions): AsyncGenerator<Example> {
  for (const file of files) {
    for await (const example of fromSource(file, options)) yield { ...example, file }
  }
}

function fromSource(source: TextSource, options: ReadOptions): AsyncGenerator<Example> {
  const format = options.format ?? formatOf(source)
  if (format === 'parquet') return parquetExamples(source, options)
  return format === 'jsonl' ? jsonExamples(source, options) : delimitedExamples(source, format, options)
}

function formatOf(source: TextSource): DataFormat {
  const extension = extname(sourceName(source)).toLowerCase()
  const format = FORMATS[extension]
  if (format !== undefined) return format
  throw new DpMoeError(
    'INVALID_ARGUMENT',
    `${sourceName(source)}: ${invalid('the file name', `an extension of ${Object.keys(FORMATS).join(', ')}`, extension)}. Rename the file, or state its format (eval: --format)`,
  )
}

async function* jsonExamples(source: TextSource, options: ReadOptions): AsyncGenerator<Example> {
  let count = 0
  for await (const { value, line } of readJsonLines(source)) {
    count++
    yield exampleOf(value, line, options, source)
  }
  if (count === 0) throw dataError(source, undefined, 'the file is empty. Give a file with one JSON object a line')
}

async function* parquetExamples(source: TextSource, options: ReadOptions): AsyncGenerator<Example> {
  if (typeof source !== 'string') {
    throw new DpMoeError('INVALID_ARGUMENT', `${source.name}: Parquet is read from a file, not from a stream`)
  }
  const { text, target, label, group } = options
  const wanted = [text, target, label, group].filter((name) => name !== undefined)
  await using file = await ParquetFile.open(source)
  const missing = wanted.find((name) => !file.columns.includes(name))
  if (missing !== undefined) throw noColumn(missing, file.columns, undefined, source)
  const stated = label === undefined ? undefined : file.labelNames(label)
  const labelNames = options.labelNames ?? stated
  let count = 0
  for await (const { value, row } of file.rows(wanted)) {
    count++
    yield exampleOf(value, row, labelNames ? { ...options, labelNames } : options, source)
  }
  if (count === 0) throw dataError(source, undefined, 'the file has no rows. Add one for each example')
}

/** An example from a row whose columns have names. */
function exampleOf(value: Record<string, unknown>, line: number, options: ReadOptions, source: TextSource): Example {
  const { text, target, label, group, labelNames } = options
  const example: Example = { text: textOf(value, text, line, source), line }
  if (target !== undefined) example.target = textOf(value, target, line, source)
  if (label !== undefined) {
    example.label = named(nameOf(property(value, label, line, source), 'label', label, line, source), labelNames)
  }
  if (group !== undefined) {
    example.group = nameOf(property(value, group, line, source), 'group', group, line, source)
  }
  return example
}

/** The name of a class that is given by its number. */
function named(label: string, names: readonly string[] | undefined): string {
  return (names && /^\d+$/.test(label) ? names[Number(label)]?.trim() : undefined) ?? label
}

function textOf(value: Record<string, unknown>, column: string, line: number, source: TextSource): string {
  const text = property(value, column, line, source)
  if (typeof text === 'string') return text
  throw dataError(source, line, `'${column}' is ${shown(text)}. Texts must be strings`)
}

function property(value: Record<string, unknown>, key: string, line: number, source: TextSource): unknown {
  if (Object.hasOwn(value, key)) return value[key]
  throw noColumn(key, Object.keys(value), line, source)
}

/** What a column of names is for. */
type Role = 'label' | 'group'

function nameOf(value: unknown, role: Role, column: string, line: number, source: TextSource): string {
  if (value === null || value === undefined) throw missingName(role, column, line, source)
  if (!['string', 'number', 'boolean', 'bigint'].includes(typeof value)) {
    const what = role === 'label' ? 'Labels' : 'Groups'
    throw dataError(source, line, `'${column}' is ${shown(value)}. ${what} must be names or numbers`)
  }
  if (typeof value === 'number' && !isExact(value, role)) {
    const remedy = role === 'label' ? 'Write it as a string' : 'Write groups as strings or integers below 2^53'
    throw dataError(source, line, `'${column}' is the number ${value}, and others are read as the same one. ${remedy}`)
  }
  return nonBlank(String(value), role, column, line, source)
}

/** Significant digits up to which a decimal number is read as no other one is. */
const EXACT_DIGITS = 15

/**
 * Whether no other number of a file is read as this one: a safe integer, or a label with few digits. Groups must be
 * integers, since two people must never become one.
 */
function isExact(value: number, role: Role): boolean {
  if (!Number.isFinite(value) || Number.isInteger(value)) return Number.isSafeInteger(value)
  const digits = String(value).replace(/e.*$/, '').replace(/\D/g, '').replace(/^0+/, '')
  return role === 'label' && digits.length <= EXACT_DIGITS
}

async function* delimitedExamples(
  source: TextSource,
  format: 'csv' | 'tsv',
  options: ReadOptions,
): AsyncGenerator<Example> {
  let columns: Record<'text' | 'target' | 'label' | 'group', number | undefined> | undefined
  let count = 0
  for await (const row of readDelimited(source, format, options.limit)) {
    if (columns === undefined) {
      const index = (name: string | undefined) => (name === undefined ? undefined : columnIndex(name, row, source))
      const { text, target, label, group } = options
      columns = { text: index(text), target: index(target), label: index(label), group: index(group) }
      continue
    }
    count++
    const example: Example = { text: row.fields[columns.text!]!, line: row.line }
    if (columns.target !== undefined) example.target = row.fields[columns.target]!
    if (columns.label !== undefined) {
      const label = nonBlank(row.fields[columns.label]!, 'label', options.label!, row.line, source)
      example.label = named(label, options.labelNames)
    }
    if (columns.group !== undefined) {
      example.group = nonBlank(row.fields[columns.group]!, 'group', options.group!, row.line, source)
    }
    yield example
  }
  if (columns === undefined) {
    throw dataError(source, undefined, 'the file is empty. Give a file with a header line and one row for each example')
  }
  if (count === 0) throw dataError(source, undefined, 'the file has a header but no rows. Add one row for each example')
}

function columnIndex(name: string, header: DelimitedRow, source: TextSource): number {
  const index = header.fields.indexOf(name)
  if (index < 0) throw noColumn(name, header.fields, header.line, source)
  if (header.fields.indexOf(name, index + 1) >= 0) {
    throw dataError(source, header.line, `there are two columns '${name}'. Rename one of them`)
  }
  return index
}

function noColumn(name: string, existing: readonly string[], line: number | undefined, source: TextSource): Error {
  const list = existing.length === 0 ? 'there are none' : `the columns are ${existing.map((c) => `'${c}'`).join(', ')}`
  return dataError(
    source,
    line,
    `there is no column '${name}'; ${list}. Name one of the file's columns (eval and train: --text, --label, --group, --prompt, --completion, --source and --target; predict: --text-column; generate: --prompt-column)`,
  )
}

function nonBlank(name: string, role: Role, column: string, line: number, source: TextSource): string {
  const trimmed = name.trim()
  if (trimmed === '') throw missingName(role, column, line, source)
  return trimmed
}

function missingName(role: Role, column: string, line: number, source: TextSource): Error {
  return dataError(source, line, `the ${role} in column '${column}' is missing. Fill it in, or remove the row`)
}

function shown(value: unknown): string {
  if (value === null || value === undefined) return 'null'
  return Array.isArray(value) ? 'a list' : typeof value === 'object' ? 'an object' : `a ${typeof value}`
}
