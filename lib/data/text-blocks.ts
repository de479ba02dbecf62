import { isUtf8 } from 'node:buffer'
import { createReadStream } from 'node:fs'
import { DpMoeError } from '../errors.js'
import { fileError } from '../files.js'

/** Whole lines of a text file, checked: valid UTF-8, no NUL bytes, no byte order mark. */
export interface TextBlock {
  bytes: Buffer
  /** Line number of the first line, from 1. */
  line: number
}

/** Where bytes come from: a path, or a stream (standard input) with the name that errors give it. */
export type TextSource = string | { name: string; stream: AsyncIterable<Uint8Array> }

/** One source, or the files that hold a data set together. */
export type DataSource = TextSource | readonly string[]

const NEWLINE = 0x0a

/** A line past this could not be held as a string in every case. */
const LONGEST_LINE = 256 * 1024 * 1024

const BYTE_ORDER_MARK = Buffer.from([0xef, 0xbb, 0xbf])

/** The name that errors give a source. */
export function sourceName(source: DataSource): string {
  if (typeof source === 'string') return source
  if ('name' in source) return source.name
  return source.length === 1 ? source[0]! : `${source[0]} and ${source.length - 1} more`
}

/** A data file's error, in the one form all of them have: file:line: what is wrong. What to do. */
export function dataError(source: DataSource, line: number | undefined, message: string, cause?: unknown): DpMoeError {
  const place = line === undefined ? sourceName(source) : `${sourceName(source)}:${line}`
  return new DpMoeError('DATA_FORMAT', `${place}: ${message}`, cause === undefined ? undefined : { cause })
}

/**
 * Reads a source in blocks of whole lines, each checked before it is handed on; the last line may lack its newline.
 *
 * @throws DpMoeError naming the file, and the line of the first byte that is no text
 */
export async function* readTextBlocks(source: TextSource): AsyncGenerator<TextBlock> {
  let line = 1
  let pending: Buffer[] = []
  let pendingBytes = 0
  for await (const chunk of chunksOf(source)) {
    const end = chunk.lastIndexOf(NEWLINE) + 1
    if (end > 0) {
      const block = checked(Buffer.concat([...pending, chunk.subarray(0, end)]), line, source)
      yield block
      line = block.line + countNewlines(block.bytes)
      pending = []
      pendingBytes = 0
    }
    pending.push(chunk.subarray(end))
    pendingBytes += chunk.length - end
    if (pendingBytes > LONGEST_LINE) {
      throw dataError(
        source,
        line,
        'the line is longer than 256 MiB. Check that this is a text file with one row a line',
      )
    }
  }
  if (pendingBytes > 0) yield checked(Buffer.concat(pending), line, source)
}

async function* chunksOf(source: TextSource): AsyncGenerator<Buffer> {
  if (typeof source !== 'string') {
    for await (const chunk of source.stream) yield Buffer.from(chunk)
    return
  }
  try {
    for await (const chunk of createReadStream(source, { highWaterMark: 1024 * 1024 })) yield chunk as Buffer
  } catch (error) {
    throw fileError(error, 'read', source)
  }
}

function checked(bytes: Buffer, line: number, source: TextSource): TextBlock {
  if (line === 1) {
    requireUtf8Mark(bytes, source)
    if (bytes.subarray(0, 3).equals(BYTE_ORDER_MARK)) bytes = bytes.subarray(3)
  }
  const nul = bytes.indexOf(0)
  if (nul >= 0) {
    const at = line + countNewlines(bytes.subarray(0, nul))
    throw dataError(
      source,
      at,
      'the line holds a NUL byte, so this is not a text file, or a damaged one. Remove the line',
    )
  }
  if (!isUtf8(bytes)) {
    const at = line + countNewlines(bytes.subarray(0, firstBadLine(bytes)))
    throw dataError(source, at, 'the line is not valid UTF-8. Convert the file to UTF-8 (for example with iconv)')
  }
  return { bytes, line }
}

function requireUtf8Mark(bytes: Buffer, source: TextSource): void {
  const mark = bytes.length >= 2 ? bytes.readUInt16BE(0) : 0
  if (mark === 0xfffe || mark === 0xfeff) {
    throw dataError(source, 1, 'the file is UTF-16, and UTF-8 was expected. Save it as UTF-8 (for example with iconv)')
  }
}

/** Offset of the first line that is not valid UTF-8: a newline byte is never part of another character. */
function firstBadLine(bytes: Buffer): number {
  for (let start = 0; start < bytes.length; ) {
    const newline = bytes.indexOf(NEWLINE, start)
    const end = newline < 0 ? bytes.length : newline + 1
    if (!isUtf8(bytes.subarray(start, end))) return start
    start = end
  }
  return bytes.length
}

function countNewlines(bytes: Buffer): number {
  let count = 0
  for (let at = bytes.indexOf(NEWLINE); at >= 0; at = bytes.indexOf(NEWLINE, at + 1)) count++
  return count
}
