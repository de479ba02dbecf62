import { dataError, readTextBlocks, type TextSource } from './text-blocks.js'

/** One object of a JSON Lines file. */
export interface JsonRow {
  value: Record<string, unknown>
  /** Line number, from 1. */
  line: number
}

/**
 * Reads a JSON Lines source: one JSON object a line; blank lines are skipped.
 *
 * @throws DpMoeError naming file and line for a line that is not a JSON object
 */
export async function* readJsonLines(source: TextSource): AsyncGenerator<JsonRow> {
  for await (const block of readTextBlocks(source)) {
    let line = block.line
    for (let start = 0; start < block.bytes.length; line++) {
      const newline = block.bytes.indexOf(0x0a, start)
      const end = newline < 0 ? block.bytes.length : newline
      const text = block.bytes.toString('utf8', start, end)
      if (text.trim() !== '') yield { value: parseObject(text, line, source), line }
      start = end + 1
    }
  }
}

function parseObject(text: string, line: number, source: TextSource): Record<string, unknown> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw dataError(source, line, `the line is not JSON (it starts with ${excerpt(text)}). ${ONE_OBJECT}`, error)
  }
  if (typeof value !== 'object' || value === null || Array.isArray(value)) {
    throw dataError(source, line, `the line is JSON but not an object (it starts with ${excerpt(text)}). ${ONE_OBJECT}`)
  }
  return value as Record<string, unknown>
}

const ONE_OBJECT = 'Each line must be one object, such as {"text": "...", "label": "..."}'

/** The start of a line as one quoted line, short enough for a message. */
function excerpt(text: string): string {
  const start = text.trim()
  return JSON.stringify(start.length > 40 ? `${start.slice(0, 40)}...` : start)
}
