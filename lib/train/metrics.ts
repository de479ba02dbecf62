import { type FileHandle, open, readFile } from 'node:fs/promises'
import { fileError, replaceFile, systemErrorCode, withFileErrors, writeFully } from '../files.js'

/** One line of metrics.jsonl. Numbers that are not finite are written as null. */
export interface MetricsRecord {
  /** The step it belongs to, from 0. */
  readonly step: number
  readonly [name: string]: unknown
}

/**
 * The metrics of a run, as JSON lines in `private/`: losses, norms, clip rate, expert loads, computed without noise.
 * Nothing depends on them, so they are not flushed; a failing disk is reported by the next `flush` or `close`.
 */
export class MetricsLog {
  readonly path: string
  readonly #handle: FileHandle
  #position: number
  #pending: string[] = []
  #failure: unknown
  #writing: Promise<void> | undefined

  private constructor(path: string, handle: FileHandle, position: number) {
    this.path = path
    this.#handle = handle
    this.#position = position
  }

  /**
   * Opens or makes the file.
   *
   * @param beforeStep records of this step and later ones are dropped: a resumed run makes them again
   */
  static async open(path: string, beforeStep = Infinity): Promise<MetricsLog> {
    const records = (await readMetrics(path)).filter(({ step }) => step < beforeStep)
    const text = records.map((record) => `${JSON.stringify(record)}\n`).join('')
    await replaceFile(path, text)
    const handle = await withFileErrors('write', path, () => open(path, 'r+'))
    return new MetricsLog(path, handle, Buffer.byteLength(text))
  }

  /** Takes a record and returns at once; it is written soon. */
  append(record: MetricsRecord): void {
    if (this.#failure !== undefined) return
    this.#pending.push(`${JSON.stringify(record)}\n`)
    this.#writing ??= this.#drain()
  }

  /** Waits until everything appended is written. Throws DpMoeError DISK_FULL or FILE_ACCESS when that failed. */
  async flush(): Promise<void> {
    await this.#writing
    if (this.#failure !== undefined) throw this.#failure
  }

  /** Flushes and closes the file. */
  async close(): Promise<void> {
    try {
      await this.flush()
    } finally {
      await this.#handle.close()
    }
  }

  async #drain(): Promise<void> {
    while (this.#pending.length > 0) {
      const bytes = Buffer.from(this.#pending.join(''))
      this.#pending = []
      try {
        await writeFully(this.#handle, bytes, this.#position)
        this.#position += bytes.byteLength
      } catch (error) {
        this.#failure = fileError(error, 'write', this.path)
        await this.#handle.truncate(this.#position).catch(() => {})
      }
    }
    this.#writing = undefined
  }
}

/** Reads a metrics file: no records when there is none, and without the last line when it was cut short. */
export async function readMetrics(path: string): Promise<MetricsRecord[]> {
  let text: string
  try {
    text = await readFile(path, 'utf8')
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return []
    throw fileError(error, 'read', path)
  }
  return text.split('\n').flatMap((line) => parseRecord(line) ?? [])
}

function parseRecord(line: string): MetricsRecord | undefined {
  try {
    const value: unknown = JSON.parse(line)
    const isRecord = typeof value === 'object' && value !== null && 'step' in value && typeof value.step === 'number'
    return isRecord ? (value as MetricsRecord) : undefined
  } catch {
    return undefined
  }
}
