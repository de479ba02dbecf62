import { createHash } from 'node:crypto'
import { z } from 'zod'
import { DpMoeError } from '../errors.js'

const mechanismShape = {
  noiseMultiplier: z.number().nonnegative(),
  sampleRate: z.number().gt(0).lte(1),
}

const keySource = z.enum(['os', 'file', 'seed'])

const hexDigest = z.string().regex(/^[0-9a-f]{64}$/)

const entrySchema = z.discriminatedUnion('type', [
  z.strictObject({
    type: z.literal('run'),
    schema: z.literal('dp-moe-ledger-1'),
    key: keySource,
    ...mechanismShape,
    plannedSteps: z.int().nonnegative(),
    relation: z.string(),
    configurationFingerprint: hexDigest,
    dataFingerprint: hexDigest,
    keyFingerprint: hexDigest.optional(),
    software: z.string(),
  }),
  z.strictObject({ type: z.literal('step'), step: z.int().nonnegative(), ...mechanismShape }),
  z.strictObject({ type: z.literal('recovered'), step: z.int().nonnegative(), ...mechanismShape }),
  z.strictObject({
    type: z.literal('segment'),
    segment: z.int().min(2),
    checkpointStep: z.int().nonnegative(),
    software: z.string(),
  }),
  z.strictObject({ type: z.literal('end'), steps: z.int().nonnegative() }),
])

/**
 * Where the noise key comes from: the operating system (private, never stored), a file kept elsewhere (private,
 * replayable), or a seed (not private).
 */
export type KeySource = z.infer<typeof keySource>

/** What one step did: the Gaussian's noise multiplier sigma, and the Poisson rate at which each unit was sampled. */
export interface StepMechanism {
  readonly noiseMultiplier: number
  readonly sampleRate: number
}

/** One line of the ledger, without its hash. */
export type LedgerEntry = z.infer<typeof entrySchema>

export type RunEntry = Extract<LedgerEntry, { type: 'run' }>

/** The hash before the first line. */
export const INITIAL_HASH = '0'.repeat(64)

/** Every line ends in its hash; what comes before it is the line's content. */
const HASH_SUFFIX = /^,"hash":"([0-9a-f]{64})"\}$/
const HASH_SUFFIX_BYTES = 75

/** A whole entry with something after it: never what a cut-short write leaves. */
const ENTRY_WITHIN = /"hash":"[0-9a-f]{64}"\}[\s\S]/

function chain(previousHash: string, content: string | Uint8Array): string {
  return createHash('sha256').update(previousHash).update(content).digest('hex')
}

/** The line of an entry, newline included, and the hash that the next line builds on. */
export function formatEntry(entry: LedgerEntry, previousHash: string): { line: string; hash: string } {
  const body = JSON.stringify(entry).slice(0, -1)
  const hash = chain(previousHash, body)
  return { line: `${body},"hash":"${hash}"}\n`, hash }
}

/** What a ledger's bytes say. */
export interface ParsedLedger {
  readonly entries: LedgerEntry[]
  readonly hash: string
  /** Bytes of the whole lines; a torn last line lies after them. */
  readonly validBytes: number
  /** Whether a last line was begun and not finished. */
  readonly torn: boolean
}

/**
 * Reads a ledger and verifies its chain.
 *
 * | last line | result |
 * |---|---|
 * | whole | an entry |
 * | without its newline, or no JSON with a hash (a write cut short) | torn |
 * | whole, but its hash is wrong | LEDGER_DAMAGED: no cut-short write leaves that |
 *
 * | any earlier line | result |
 * |---|---|
 * | a byte changed, removed, added; lines swapped, removed, repeated | LEDGER_DAMAGED, naming the line |
 *
 * @throws DpMoeError LEDGER_DAMAGED
 */
export function parseLedger(path: string, bytes: Uint8Array): ParsedLedger {
  const buffer = Buffer.from(bytes.buffer, bytes.byteOffset, bytes.byteLength)
  const entries: LedgerEntry[] = []
  let hash = INITIAL_HASH
  let position = 0
  while (position < buffer.byteLength) {
    const number = entries.length + 1
    const newline = buffer.indexOf(0x0a, position)
    const line = buffer.subarray(position, newline === -1 ? buffer.byteLength : newline)
    const stated =
      newline === -1 ? undefined : HASH_SUFFIX.exec(line.toString('latin1', line.byteLength - HASH_SUFFIX_BYTES))
    if (!stated) {
      const isLast = newline === -1 || newline === buffer.byteLength - 1
      const canBeTorn = isLast && entries.length > 0 && !ENTRY_WITHIN.test(line.toString('latin1'))
      if (canBeTorn) return { entries, hash, validBytes: position, torn: true }
      throw damaged(path, number, 'is not a ledger entry')
    }
    const content = line.subarray(0, line.byteLength - HASH_SUFFIX_BYTES)
    hash = chain(hash, content)
    if (hash !== stated[1]) throw damaged(path, number, 'was changed: its hash does not fit')
    entries.push(parseEntry(path, number, `${content.toString('utf8')}}`))
    position = newline + 1
  }
  if (entries.length === 0) throw damaged(path, 1, 'is missing')
  return { entries, hash, validBytes: position, torn: false }
}

function parseEntry(path: string, line: number, json: string): LedgerEntry {
  let value: unknown
  try {
    value = JSON.parse(json)
  } catch (error) {
    throw damaged(path, line, 'is not JSON', { cause: error })
  }
  const parsed = entrySchema.safeParse(value)
  if (!parsed.success) throw damaged(path, line, `is no entry this version knows: ${z.prettifyError(parsed.error)}`)
  return parsed.data
}

/** The one error for a ledger that cannot be trusted. */
export function damaged(path: string, line: number, what: string, options?: ErrorOptions): DpMoeError {
  return new DpMoeError(
    'LEDGER_DAMAGED',
    `${path}, line ${line} ${what}. The privacy spent by this run cannot be known from it: restore the file from a ` +
      'backup, or start a new run and count this one in full',
    options,
  )
}
