import { type FileHandle, open, readFile, stat } from 'node:fs/promises'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { fileError, replaceFile, systemErrorCode, withFileErrors, writeFully } from '../files.js'
import { type FileLock, lockFile } from './file-lock.js'
import {
  formatEntry,
  INITIAL_HASH,
  type LedgerEntry,
  parseLedger,
  type RunEntry,
  type StepMechanism,
} from './ledger-format.js'
import { LedgerHistory, type LedgerSummary } from './ledger-history.js'

export type { KeySource, RunEntry, StepMechanism } from './ledger-format.js'
export type { LedgerSegment, LedgerSummary, StepGroup } from './ledger-history.js'

/** What a run states once, before its first step. Fingerprints come from `fingerprint()` with the run's secret. */
export type LedgerRun = Omit<RunEntry, 'type' | 'schema'>

/** A point in a ledger, which a checkpoint remembers. */
export interface LedgerPosition {
  readonly lines: number
  /** Hash of the last of these lines. */
  readonly hash: string
}

/**
 * The record of what a private run has spent: append-only JSON lines with a running SHA-256.
 *
 * Guarantee: when `append` resolves, the step is on disk, so if its update is made only then, the ledger never holds
 * fewer steps than updates were made, whenever the process is killed or the disk fills up. An entry holds the step's
 * number and mechanism, nothing computed from data. A changed, removed or added line is found, except by one who
 * recomputes the hashes after it or puts back an older copy of the whole file.
 *
 * | event | what the ledger says afterwards |
 * |---|---|
 * | killed before or after an append | every whole entry |
 * | killed during an append | the torn line counts as one spent step and is closed by a `recovered` entry |
 * | disk full during an append | the line is cut back, or torn when that fails too; `append` rejects, and so does every later one |
 * | a step redone by a seeded or key-file run | checked against its entry, none added |
 * | a step redone by a run with a key of the operating system | refused: its noise would be new |
 * | a step beyond the planned number | refused, BUDGET_EXCEEDED |
 * | opened by two processes | the second is refused, FILE_ACCESS |
 */
export class Ledger {
  readonly path: string
  readonly #handle: FileHandle
  readonly #lock: FileLock
  readonly #history: LedgerHistory
  #bytes: number
  #hash: string
  #lines: number
  #failure: unknown
  #queue: Promise<void> = Promise.resolve()

  private constructor(
    path: string,
    handle: FileHandle,
    lock: FileLock,
    parsed: { entries: readonly LedgerEntry[]; hash: string; bytes: number },
  ) {
    this.path = path
    this.#handle = handle
    this.#lock = lock
    this.#history = LedgerHistory.of(path, parsed.entries)
    this.#bytes = parsed.bytes
    this.#hash = parsed.hash
    this.#lines = parsed.entries.length
  }

  /**
   * Starts the ledger of a new run, on disk with its `run` entry when this resolves.
   *
   * @throws DpMoeError FILE_EXISTS when there is one already; DISK_FULL, FILE_ACCESS
   */
  static async create(path: string, run: LedgerRun): Promise<Ledger> {
    if (await exists(path)) {
      throw new DpMoeError(
        'FILE_EXISTS',
        `${path} holds the ledger of a run already. Resume it, or choose another folder`,
      )
    }
    checkMechanism(run)
    const entry: RunEntry = { type: 'run', schema: 'dp-moe-ledger-1', ...run }
    await replaceFile(path, formatEntry(entry, INITIAL_HASH).line)
    return Ledger.open(path)
  }

  /**
   * Opens the ledger of a run to go on with it. A torn last line is closed by a `recovered` entry, on disk when this
   * resolves.
   *
   * @throws DpMoeError LEDGER_DAMAGED, naming the line; FILE_ACCESS when another process writes it; FILE_NOT_FOUND
   */
  static async open(path: string): Promise<Ledger> {
    const lock = await lockFile(path)
    try {
      let bytes: Uint8Array = await withFileErrors('read', path, () => readFile(path))
      let parsed = parseLedger(path, bytes)
      if (parsed.torn) {
        const recovered = LedgerHistory.of(path, parsed.entries).recoveredEntry()
        const line = Buffer.from(formatEntry(recovered, parsed.hash).line)
        bytes = Buffer.concat([bytes.subarray(0, parsed.validBytes), line])
        await replaceFile(path, bytes)
        parsed = parseLedger(path, bytes)
      }
      const handle = await withFileErrors('write', path, () => open(path, 'r+'))
      return new Ledger(path, handle, lock, { ...parsed, bytes: bytes.byteLength })
    } catch (error) {
      await lock.release()
      throw error
    }
  }

  /** The run's entry, its segments with their steps, and whether it has ended. */
  get summary(): LedgerSummary {
    return this.#history.summary(this.#hash)
  }

  /** Steps spent, counting those whose updates were lost; also the number of the next step to record. */
  get steps(): number {
    return this.#history.steps
  }

  /** Where the ledger stands, for a checkpoint to remember. */
  get position(): LedgerPosition {
    return { lines: this.#lines, hash: this.#hash }
  }

  /**
   * Records a step; await it before making the step's update. Steps are numbered from 0 without gaps.
   *
   * @throws DpMoeError DISK_FULL, FILE_ACCESS: the step is not recorded, or counts as torn; do not make the update
   * @throws DpMoeError LEDGER_DAMAGED when a redone step differs from its entry; BUDGET_EXCEEDED; INVALID_ARGUMENT
   */
  async append(step: number, mechanism: StepMechanism): Promise<void> {
    checkMechanism(mechanism)
    const { noiseMultiplier, sampleRate } = mechanism
    await this.#enqueue(async () => {
      if (this.#history.isRedone(step, mechanism)) return
      await this.#write({ type: 'step', step, noiseMultiplier, sampleRate })
    })
  }

  /**
   * Records that training goes on from a checkpoint with a fresh key: steps after it stay spent. Only for a run with a
   * key of the operating system; others redo those steps.
   *
   * @param checkpointStep the checkpoint's `nextStep`
   */
  async beginSegment(checkpointStep: number, software: string): Promise<void> {
    await this.#enqueue(async () => {
      const segment = this.#history.nextSegment(checkpointStep)
      await this.#write({ type: 'segment', segment, checkpointStep, software })
    })
  }

  /** Records that the run is complete; nothing can be appended afterwards. Does nothing when it has ended already. */
  async end(): Promise<void> {
    await this.#enqueue(async () => {
      if (!this.#history.ended) await this.#write({ type: 'end', steps: this.#history.steps })
    })
  }

  /**
   * Checks that this ledger continues the one a checkpoint was written beside.
   *
   * @throws DpMoeError LEDGER_DAMAGED when it is shorter or another one: an older copy was put back
   */
  async verifyContains(position: LedgerPosition): Promise<void> {
    const text = await withFileErrors('read', this.path, () => readFile(this.path, 'latin1'))
    if (holdsPosition(text, position)) return
    throw new DpMoeError(
      'LEDGER_DAMAGED',
      `${this.path}, line ${position.lines} is not the one that the checkpoint was written after: the file was replaced ` +
        'by an older or another one. Restore it, or start a new run and count this one in full',
    )
  }

  /** Waits for what is being written, closes the file and frees its lock. */
  async close(): Promise<void> {
    await this.#queue
    await this.#handle.close()
    await this.#lock.release()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #enqueue(work: () => Promise<void>): Promise<void> {
    const done = this.#queue.then(work)
    this.#queue = done.catch(() => {})
    return done
  }

  async #write(entry: LedgerEntry): Promise<void> {
    if (this.#lock.lost) throw this.#lock.lost
    if (this.#failure !== undefined) throw this.#failure
    this.#history.check(entry)
    const { line, hash } = formatEntry(entry, this.#hash)
    const bytes = Buffer.from(line)
    try {
      await writeFully(this.#handle, bytes, this.#bytes)
      await this.#handle.datasync()
    } catch (error) {
      // What a failed flush left on disk is unknown, so this ledger writes no more; opening it again finds out.
      this.#failure = fileError(error, 'write', this.path)
      await this.#handle.truncate(this.#bytes).catch(() => {})
      throw this.#failure
    }
    this.#bytes += bytes.byteLength
    this.#hash = hash
    this.#lines++
    this.#history.add(entry)
  }
}

/**
 * Reads a ledger without changing it or taking its lock. A torn last line counts as one spent step.
 *
 * @throws DpMoeError LEDGER_DAMAGED, FILE_NOT_FOUND
 */
export async function readLedger(path: string): Promise<LedgerSummary> {
  return summaryOfLedger(path, await withFileErrors('read', path, () => readFile(path)))
}

/** The same of a ledger's bytes. @throws DpMoeError LEDGER_DAMAGED, naming `path` */
export function summaryOfLedger(path: string, bytes: Uint8Array): LedgerSummary {
  const parsed = parseLedger(path, bytes)
  const history = LedgerHistory.of(path, parsed.entries)
  if (parsed.torn) history.add(history.recoveredEntry())
  return history.summary(parsed.hash)
}

/** Whether a ledger's text goes at least as far as a position, along the same lines. */
export function holdsPosition(text: string, { lines, hash }: LedgerPosition): boolean {
  return text.split('\n', lines)[lines - 1]?.endsWith(`"hash":"${hash}"}`) === true
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return false
    throw fileError(error, 'read', path)
  }
}

function checkMechanism({ noiseMultiplier, sampleRate }: StepMechanism): void {
  if (!(noiseMultiplier >= 0 && Number.isFinite(noiseMultiplier))) {
    throw new OutOfRangeError('noiseMultiplier', 'a finite number >= 0', noiseMultiplier)
  }
  if (!(sampleRate > 0 && sampleRate <= 1)) throw new OutOfRangeError('sampleRate', 'a number in (0, 1]', sampleRate)
}
