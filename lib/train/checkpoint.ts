import { mkdir, readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { removeFolder, withFileErrors, writeFolderAtomically } from '../files.js'
import { Checkpoint, type CheckpointFacts, type CheckpointTensors, writeCheckpointFiles } from './checkpoint-format.js'

export type { Checkpoint, CheckpointFacts, CheckpointTensor, CheckpointTensors } from './checkpoint-format.js'

const KEPT_CHECKPOINTS = 2

/** A checkpoint that was passed over, and why. */
export interface DamagedCheckpoint {
  readonly path: string
  readonly reason: string
}

/**
 * The checkpoints of a run: a folder each, named by the step to make next. The newest two are kept.
 *
 * | killed, or the disk full | afterwards |
 * |---|---|
 * | while a checkpoint is written | the earlier ones are there and load; the new one is not seen |
 * | while an old one is removed | the newer ones are there and load |
 */
export class CheckpointStore {
  readonly folder: string
  /** Found damaged by {@link load}: not counted among those to keep. */
  readonly #damaged = new Set<string>()

  constructor(folder: string) {
    this.folder = folder
  }

  /**
   * Writes a checkpoint, durable when this resolves, and then removes older ones.
   *
   * @throws DpMoeError DISK_FULL, FILE_ACCESS; earlier checkpoints are untouched
   */
  async save(facts: CheckpointFacts, tensors: CheckpointTensors): Promise<void> {
    await withFileErrors('create', this.folder, () => mkdir(this.folder, { recursive: true }))
    const name = nameOf(facts.nextStep)
    const write = (folder: string) => writeCheckpointFiles(folder, facts, tensors)
    await writeFolderAtomically(join(this.folder, name), write, { replace: true })
    this.#damaged.delete(name)
    await this.#removeOld()
  }

  /**
   * Opens the newest checkpoint whose checksums hold; the caller closes it, and should show what was passed over.
   *
   * @returns no checkpoint when none was ever written
   * @throws DpMoeError CHECKPOINT_DAMAGED when there are some and none loads
   */
  async load(): Promise<{ checkpoint: Checkpoint | undefined; damaged: DamagedCheckpoint[] }> {
    const damaged: DamagedCheckpoint[] = []
    for (const name of await this.#names()) {
      const path = join(this.folder, name)
      try {
        return { checkpoint: await Checkpoint.open(path), damaged }
      } catch (error) {
        if (!(error instanceof DpMoeError && error.code === 'CHECKPOINT_DAMAGED')) throw error
        damaged.push({ path, reason: error.message })
        this.#damaged.add(name)
      }
    }
    if (damaged.length === 0) return { checkpoint: undefined, damaged }
    const reasons = damaged.map(({ reason }) => reason).join('; ')
    throw new DpMoeError(
      'CHECKPOINT_DAMAGED',
      `None of the ${damaged.length} checkpoints in ${this.folder} loads (${reasons}). Restore one from a backup, or start ` +
        'a new run: the steps in the ledger stay spent',
    )
  }

  /** Whether none was written. */
  async isEmpty(): Promise<boolean> {
    return (await this.#names()).length === 0
  }

  /** Names of the checkpoints, newest first. */
  async #names(): Promise<string[]> {
    const names = await withFileErrors('read', this.folder, () => readdir(this.folder))
    return names
      .filter((name) => /^step-\d+$/.test(name))
      .sort()
      .reverse()
  }

  async #removeOld(): Promise<void> {
    const names = await this.#names()
    const kept = new Set(names.filter((name) => !this.#damaged.has(name)).slice(0, KEPT_CHECKPOINTS))
    for (const name of names) {
      if (kept.has(name)) continue
      await removeFolder(join(this.folder, name))
      this.#damaged.delete(name)
    }
  }
}

/** Padded, so that the order of the names is that of the steps. */
function nameOf(nextStep: number): string {
  return `step-${String(nextStep).padStart(10, '0')}`
}
