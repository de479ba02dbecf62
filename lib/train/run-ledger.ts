import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { systemErrorCode, withFileErrors } from '../files.js'
import { certificateFile } from '../models/model-folder.js'
import { type Certificate, readCertificate } from '../privacy/certificate.js'
import { holdsPosition, type LedgerSummary, summaryOfLedger } from '../privacy/ledger.js'
import { readCheckpointFacts } from './checkpoint-format.js'

/** What a run folder says about the privacy that was spent. */
export interface RunLedger {
  readonly summary: LedgerSummary
  /** Of a run that has ended. */
  readonly certificate: Certificate | undefined
  /** What says that the ledger's end is not missing; undefined: it was compared with nothing. */
  readonly comparedWith: 'certificate' | 'checkpoint' | undefined
}

/**
 * Reads the ledger of a run folder, and compares it with what the rest of the folder remembers of it.
 *
 * Guarantee: steps that a certificate or a checkpoint of the folder knows of are never left out. The chain of a ledger
 * shows any change but a missing end.
 *
 * | the folder | result |
 * |---|---|
 * | has a certificate of this very ledger | `comparedWith: 'certificate'` |
 * | has a certificate of a longer or another one | LEDGER_DAMAGED |
 * | has no certificate, and checkpoints that were written after lines of this ledger | `comparedWith: 'checkpoint'` |
 * | has a checkpoint that was written after a line that is missing | LEDGER_DAMAGED |
 * | has neither, or no checkpoint that can be read | `comparedWith: undefined` |
 * | is of a run without privacy | INVALID_ARGUMENT |
 *
 * @throws DpMoeError LEDGER_DAMAGED, INVALID_ARGUMENT, FILE_NOT_FOUND; MODEL_FORMAT for a damaged certificate
 */
export async function readRunLedger(folder: string): Promise<RunLedger> {
  const certificate = await certificateOf(folder)
  const path = join(folder, 'private', 'ledger.jsonl')
  const bytes = await withFileErrors('read', path, () => readFile(path))
  const summary = summaryOfLedger(path, bytes)
  if (certificate) {
    if (summary.hash === certificate.ledgerHash) return { summary, certificate, comparedWith: 'certificate' }
    throw cut(path, `the certificate is of ${certificate.steps} steps and another last line; this has ${summary.steps}`)
  }
  const text = bytes.toString('latin1')
  const positions = await checkpointPositions(join(folder, 'private', 'checkpoints'))
  for (const position of positions) {
    if (!holdsPosition(text, position)) throw cut(path, `a checkpoint was written after its line ${position.lines}`)
  }
  return { summary, certificate, comparedWith: positions.length > 0 ? 'checkpoint' : undefined }
}

/** A run without privacy has no ledger: say that, not that a file is missing. */
async function certificateOf(folder: string): Promise<Certificate | undefined> {
  const certificate = await ifThere(readCertificate(join(folder, 'release', certificateFile)))
  if (certificate?.mechanism !== 'none') return certificate
  const message = `The run in ${folder} is not private: it has no ledger, and no bound on epsilon`
  throw new DpMoeError('INVALID_ARGUMENT', message)
}

/** Damaged checkpoints are passed over, as on resume. */
async function checkpointPositions(folder: string) {
  const names = (await ifThere(withFileErrors('read', folder, () => readdir(folder)))) ?? []
  const facts = await Promise.all(names.map((name) => readCheckpointFacts(join(folder, name)).catch(() => undefined)))
  return facts.flatMap((fact) => fact?.ledger ?? [])
}

async function ifThere<T>(read: Promise<T>): Promise<T | undefined> {
  try {
    return await read
  } catch (error) {
    if (error instanceof DpMoeError && systemErrorCode(error.cause) === 'ENOENT') return undefined
    throw error
  }
}

function cut(path: string, why: string): DpMoeError {
  return new DpMoeError(
    'LEDGER_DAMAGED',
    `${path} is not the whole ledger of this run: ${why}. The privacy spent cannot be known from it: restore the file ` +
      'from a backup, or count the run in full',
  )
}
