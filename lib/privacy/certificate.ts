import { readFile } from 'node:fs/promises'
import { z } from 'zod'
import { DpMoeError, invalid } from '../errors.js'
import { replaceFile, withFileErrors } from '../files.js'

const SCHEMA = 'dp-moe-certificate-1'

/** Slack of the rule that the weights of all releases sum to 1: they are quotients, rounded. */
const WEIGHT_TOLERANCE = 1e-9

const software = z.strictObject({ name: z.string(), version: z.string() })

const privateSchema = z
  .strictObject({
    schema: z.literal(SCHEMA),
    mechanism: z.literal('poisson-subsampled-gaussian'),
    unit: z.enum(['example', 'user']),
    relation: z.enum(['zero-out', 'add-or-remove-one', 'replace-one']),
    noiseMultiplier: z.number().positive(),
    sampleRate: z.number().gt(0).lte(1),
    expectedBatchSize: z.number().positive(),
    maxGradNorm: z.number().positive(),
    clipping: z.enum(['flat', 'per-layer', 'automatic', 'adaptive']),
    plannedSteps: z.int().nonnegative(),
    steps: z.int().nonnegative(),
    delta: z.number().gt(0).lt(1),
    epsilon: z.number().nonnegative(),
    accountant: z.strictObject({
      name: z.string(),
      bound: z.enum(['upper', 'estimate']),
      tolerance: z.number().positive().nullable(),
    }),
    releases: z
      .array(z.strictObject({ name: z.string(), bound: z.number().positive(), weight: z.number().gt(0).lte(1) }))
      .min(1),
    publicConstants: z.record(z.string(), z.json()),
    notCovered: z.array(z.string()).min(1),
    seeded: z.boolean(),
    software,
    ledgerHash: z.string().regex(/^[0-9a-f]{64}$/),
  })
  .refine(({ releases }) => Math.abs(releases.reduce((sum, { weight }) => sum + weight, 0) - 1) <= WEIGHT_TOLERANCE, {
    path: ['releases'],
    error: 'expected weights with sum 1',
  })

const nonPrivateSchema = z.strictObject({
  schema: z.literal(SCHEMA),
  mechanism: z.literal('none'),
  statement: z.string(),
  software,
})

/**
 * What a private run guarantees, in the terms anyone needs to compute its epsilon again.
 *
 * - `noiseMultiplier` sigma, `sampleRate` q, `maxGradNorm` C; the noise's standard deviation is sigma C.
 * - `steps` counts the ledger; `epsilon` is that of the larger of `plannedSteps` and `steps`, at `delta`.
 * - `accountant.bound` says whether `epsilon` is an upper bound; `tolerance` is its discretisation: the relative width of the
 *   bracket around the exact epsilon to which the lattice of losses is refined, null for an accountant without a lattice.
 * - `releases` are all that a step adds noise to, each with its L2 bound and its weight (the weights sum to 1).
 * - `publicConstants` are treated as public: N, label set, maximum length, vocabulary.
 * - `notCovered` says in sentences what the guarantee leaves out.
 *
 * @useDeclaredType
 */
export type Certificate = z.infer<typeof privateSchema>

/**
 * The document beside a model trained without privacy: it names no epsilon.
 *
 * @useDeclaredType
 */
export type NonPrivateStatement = z.infer<typeof nonPrivateSchema>

/** What a run knows; the schema and the standing exceptions are added by {@link createCertificate}. */
export type CertificateFacts = Omit<Certificate, 'schema' | 'mechanism' | 'notCovered'> & {
  /** Exceptions of this run, beside the standing ones. */
  readonly notCovered?: readonly string[]
}

export const SEEDED_NOT_COVERED =
  'seeded: not private. The noise and the sampling come from a stated seed, and who knows or guesses it can remove ' +
  'them; the epsilon holds only for a run whose key comes from the operating system or from a secret key file.'

const STANDING_NOT_COVERED = [
  'Hyper-parameter search: epsilon is that of this one run. Other runs on the same data, and a choice among them, add to it.',
  'Floating-point attacks on continuous noise: the Gaussian is computed in finite precision. The slack is tested, not proven.',
  'Rounding between units: each one is within its bound, but sums over units are rounded to float32. docs/privacy.md says by how much.',
  'Everything outside the release folder: losses, norms, expert loads and checkpoints of private/ are computed without noise.',
]

/**
 * Builds the certificate of a private run.
 *
 * Guarantee: it never claims more than `facts` state. A seeded run says in words that it is not private, and every
 * certificate lists hyper-parameter search and floating-point noise as not covered.
 *
 * | facts | result |
 * |---|---|
 * | noiseMultiplier 0, or epsilon infinite or NaN | INVALID_ARGUMENT: there is nothing to certify |
 * | steps above plannedSteps | accepted; epsilon must be that of `steps` |
 * | weights that do not sum to 1 | INVALID_ARGUMENT |
 * | seeded | `notCovered` begins with "seeded: not private" |
 */
export function createCertificate(facts: CertificateFacts): Certificate {
  const { notCovered = [], ...rest } = facts
  const seeded = facts.seeded ? [SEEDED_NOT_COVERED] : []
  return checkedCertificate({
    schema: SCHEMA,
    mechanism: 'poisson-subsampled-gaussian',
    ...rest,
    notCovered: [...seeded, ...STANDING_NOT_COVERED, ...notCovered],
  })
}

/** Builds the document of a run without privacy. */
export function createNonPrivateStatement(software: Certificate['software']): NonPrivateStatement {
  return {
    schema: SCHEMA,
    mechanism: 'none',
    statement:
      'non-private: this model was trained without differential privacy. It may reveal the examples it was trained on.',
    software,
  }
}

/** Writes either document atomically. */
export async function writeCertificate(path: string, document: Certificate | NonPrivateStatement): Promise<void> {
  const checked = document.mechanism === 'none' ? nonPrivateSchema.parse(document) : checkedCertificate(document)
  await replaceFile(path, `${JSON.stringify(checked, null, 2)}\n`)
}

/**
 * Reads either document; `mechanism` tells which.
 *
 * @throws DpMoeError MODEL_FORMAT when it is damaged or of a version this one does not know; FILE_NOT_FOUND
 */
export async function readCertificate(path: string): Promise<Certificate | NonPrivateStatement> {
  const text = await withFileErrors('read', path, () => readFile(path, 'utf8'))
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw unreadable(path, 'it is not JSON', error)
  }
  const parsed = z.discriminatedUnion('mechanism', [privateSchema, nonPrivateSchema]).safeParse(value)
  if (!parsed.success) throw unreadable(path, z.prettifyError(parsed.error), parsed.error)
  if (parsed.data.mechanism !== 'none' && !saysSeeded(parsed.data)) {
    throw unreadable(path, 'it is of a seeded run and does not say so among what is not covered')
  }
  return parsed.data
}

function checkedCertificate(certificate: Certificate): Certificate {
  const parsed = privateSchema.safeParse(certificate)
  if (!parsed.success) {
    throw new DpMoeError('INVALID_ARGUMENT', `A certificate cannot state this: ${z.prettifyError(parsed.error)}`)
  }
  if (!saysSeeded(parsed.data)) {
    throw new DpMoeError('INVALID_ARGUMENT', invalid('notCovered', 'the sentence of a seeded run', 'none'))
  }
  return parsed.data
}

function saysSeeded({ seeded, notCovered }: Certificate): boolean {
  return !seeded || notCovered.some((sentence) => sentence.startsWith('seeded: not private'))
}

function unreadable(path: string, why: string, cause?: unknown): DpMoeError {
  return new DpMoeError(
    'MODEL_FORMAT',
    `${path} is not a certificate of this version: ${why}. Restore it from where the model came from`,
    { cause },
  )
}
