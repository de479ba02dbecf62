import { createHash } from 'node:crypto'
import { readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import { DpMoeError } from '../errors.js'
import { replaceFile, sha256OfFile, withFileErrors } from '../files.js'
import { SafetensorsFile, type TensorSource, type WrittenFile, writeSafetensors } from '../models/safetensors.js'

const hexDigest = z.string().regex(/^[0-9a-f]{64}$/)

const factsSchema = z.strictObject({
  nextStep: z.int().nonnegative(),
  updates: z.int().nonnegative(),
  key: z.enum(['os', 'file', 'seed']),
  keyFingerprint: hexDigest.nullable(),
  configurationFingerprint: hexDigest,
  ledger: z.strictObject({ lines: z.int().positive(), hash: hexDigest }).nullable(),
  extra: z.record(z.string(), z.json()),
})

const contentSchema = z.strictObject({
  schema: z.literal('dp-moe-checkpoint-1'),
  ...factsSchema.shape,
  tensors: z.strictObject({ byteLength: z.int().nonnegative(), sha256: hexDigest }),
})

/**
 * What a checkpoint states beside its tensors.
 *
 * - `nextStep`: the step to make next, from 0; it is the position in the schedule too. `updates`: the optimizer's count.
 * - `key`: where the noise key comes from. The key itself is never written; `keyFingerprint` tells on resume whether the
 *   same file or seed is used (null for a key of the operating system).
 * - `ledger`: where the ledger stood, null without privacy.
 * - `extra`: whatever else the run needs to go on, as plain data.
 */
export type CheckpointFacts = z.infer<typeof factsSchema>

/** Tensors to write, by name. */
export interface CheckpointTensors {
  readonly parameters: ReadonlyMap<string, TensorSource>
  readonly optimizer: ReadonlyMap<string, TensorSource>
}

const FACTS_FILE = 'checkpoint.json'
const TENSORS_FILE = 'tensors.safetensors'
const PARAMETER_PREFIX = 'parameter/'
const OPTIMIZER_PREFIX = 'optimizer/'

/** Writes both files of a checkpoint into a folder, each flushed. */
export async function writeCheckpointFiles(
  folder: string,
  facts: CheckpointFacts,
  tensors: CheckpointTensors,
): Promise<void> {
  const checked = factsSchema.safeParse(facts)
  if (!checked.success) {
    throw new DpMoeError('INVALID_ARGUMENT', `A checkpoint cannot state this: ${z.prettifyError(checked.error)}`)
  }
  const all = new Map<string, TensorSource>()
  for (const [name, source] of tensors.parameters) all.set(PARAMETER_PREFIX + name, source)
  for (const [name, source] of tensors.optimizer) all.set(OPTIMIZER_PREFIX + name, source)
  const written: WrittenFile = await writeSafetensors(join(folder, TENSORS_FILE), all)
  const content = { schema: 'dp-moe-checkpoint-1', ...checked.data, tensors: written }
  const text = JSON.stringify({ content, sha256: sha256OfJson(content) })
  await replaceFile(join(folder, FACTS_FILE), `${text}\n`)
}

/** A tensor of a checkpoint, read when asked for. */
export interface CheckpointTensor {
  readonly shape: readonly number[]
  /** Row-major values. */
  read(): Promise<Float32Array>
}

/** A checkpoint whose checksums hold, open for reading. */
export class Checkpoint {
  readonly path: string
  readonly facts: CheckpointFacts
  readonly parameters: ReadonlyMap<string, CheckpointTensor>
  readonly optimizer: ReadonlyMap<string, CheckpointTensor>
  readonly #file: SafetensorsFile

  private constructor(path: string, facts: CheckpointFacts, file: SafetensorsFile) {
    this.path = path
    this.facts = facts
    this.#file = file
    this.parameters = this.#withPrefix(PARAMETER_PREFIX)
    this.optimizer = this.#withPrefix(OPTIMIZER_PREFIX)
  }

  /**
   * Opens a checkpoint's folder and verifies every byte of it.
   *
   * @throws DpMoeError CHECKPOINT_DAMAGED saying what is wrong; FILE_ACCESS
   */
  static async open(path: string): Promise<Checkpoint> {
    const { tensors, schema: _, ...facts } = await readContent(path)
    const tensorsPath = join(path, TENSORS_FILE)
    const { size } = await asDamaged(path, () => withFileErrors('read', tensorsPath, () => stat(tensorsPath)))
    if (size !== tensors.byteLength) {
      throw damaged(path, `${TENSORS_FILE} has ${size} bytes, and ${tensors.byteLength} were written`)
    }
    if ((await sha256OfFile(tensorsPath)) !== tensors.sha256) throw damaged(path, `${TENSORS_FILE} was changed`)
    return new Checkpoint(path, facts, await asDamaged(path, () => SafetensorsFile.open(tensorsPath)))
  }

  async close(): Promise<void> {
    await this.#file.close()
  }

  async [Symbol.asyncDispose](): Promise<void> {
    await this.close()
  }

  #withPrefix(prefix: string): Map<string, CheckpointTensor> {
    const found = new Map<string, CheckpointTensor>()
    for (const [name, { shape }] of this.#file.tensors) {
      if (!name.startsWith(prefix)) continue
      found.set(name.slice(prefix.length), { shape, read: () => this.#file.readFloat32(name) })
    }
    return found
  }
}

/** What a checkpoint states beside its tensors, without reading those. */
export async function readCheckpointFacts(path: string): Promise<CheckpointFacts> {
  const { tensors: _, schema: _schema, ...facts } = await readContent(path)
  return facts
}

async function readContent(path: string): Promise<z.infer<typeof contentSchema>> {
  const file = join(path, FACTS_FILE)
  const text = await asDamaged(path, () => withFileErrors('read', file, () => readFile(file, 'utf8')))
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw damaged(path, `${FACTS_FILE} is not JSON`, error)
  }
  const outer = z.strictObject({ content: z.json(), sha256: hexDigest }).safeParse(value)
  if (!outer.success || sha256OfJson(outer.data.content) !== outer.data.sha256) {
    throw damaged(path, `${FACTS_FILE} was changed`)
  }
  const parsed = contentSchema.safeParse(outer.data.content)
  if (!parsed.success) throw damaged(path, `${FACTS_FILE} is of another version: ${z.prettifyError(parsed.error)}`)
  return parsed.data
}

/** A missing or foreign file of a checkpoint means that the checkpoint is damaged; other failures stay what they are. */
async function asDamaged<T>(path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    const isDamage = error instanceof DpMoeError && (error.code === 'FILE_NOT_FOUND' || error.code === 'MODEL_FORMAT')
    throw isDamage ? damaged(path, error.message, error) : error
  }
}

function damaged(path: string, what: string, cause?: unknown): DpMoeError {
  return new DpMoeError('CHECKPOINT_DAMAGED', `The checkpoint ${path} is damaged: ${what}`, { cause })
}

function sha256OfJson(value: unknown): string {
  return createHash('sha256').update(JSON.stringify(value)).digest('hex')
}
