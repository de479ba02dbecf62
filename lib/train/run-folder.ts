import { randomBytes } from 'node:crypto'
import { chmod, mkdir, readdir, readFile, rmdir, stat } from 'node:fs/promises'
import { dirname, join, resolve } from 'node:path'
import { DpMoeError } from '../errors.js'
import {
  fileError,
  removeFolder,
  removeTemporaries,
  replaceFile,
  syncFolder,
  systemErrorCode,
  withFileErrors,
  writeFolderAtomically,
} from '../files.js'
import { certificateFile } from '../models/model-folder.js'
import { lockFile } from '../privacy/file-lock.js'

const SECRET_BYTES = 32

const PRIVATE_README =
  'Nothing in this folder is covered by the privacy guarantee: losses, norms, expert loads, checkpoints and the\n' +
  'ledger are computed from the training data without noise. Publish the release folder, never this one.\n\n' +
  'secret is the key of the fingerprints in ledger and checkpoints, without which nothing can be tested against them.\n' +
  'It is not the key of the noise, which is never written.\n'

/** The folder of a run: `release/` holds what the guarantee covers, `private/` everything else. */
export class RunFolder {
  readonly path: string
  /** Key of the run's fingerprints, drawn when the folder was made. It is not the noise key. */
  readonly secret: Uint8Array
  /** The uppermost of the folders that were made for this run. */
  readonly #madeFirst: string | undefined

  private constructor(path: string, secret: Uint8Array, madeFirst?: string) {
    this.path = path
    this.secret = secret
    this.#madeFirst = madeFirst
  }

  /**
   * Makes the folder of a new run, and the folders above it that are missing. When anything fails, nothing is left.
   *
   * | `path` | result |
   * |---|---|
   * | missing, or an empty folder | made |
   * | a folder that holds anything, a file | FILE_EXISTS |
   * | an earlier run and nothing else, with `overwrite` | replaced |
   * | a folder that holds anything else, with `overwrite` | FILE_EXISTS: only runs are ever removed |
   * | inside a read-only or forbidden folder | FILE_ACCESS |
   */
  static async create(path: string, options: { overwrite?: boolean } = {}): Promise<RunFolder> {
    const absolute = resolve(path)
    const madeFirst = await withFileErrors('create', absolute, () => mkdirOrFile(absolute))
    try {
      await clear(absolute, options.overwrite ?? false)
      const secret = randomBytes(SECRET_BYTES)
      const folder = new RunFolder(absolute, secret, madeFirst)
      if (madeFirst !== undefined) await syncParents(absolute, madeFirst)
      await writeFolderAtomically(folder.privateFolder, async (temporary) => {
        await chmod(temporary, 0o700)
        await mkdir(join(temporary, 'checkpoints'))
        await replaceFile(join(temporary, 'README.txt'), PRIVATE_README)
        await replaceFile(join(temporary, 'secret'), `${secret.toString('hex')}\n`, { mode: 0o600 })
      })
      return folder
    } catch (error) {
      if (madeFirst !== undefined) await removeEmptyFolders(absolute, madeFirst)
      throw fileError(error, 'create', absolute)
    }
  }

  /**
   * Opens the folder of a run to resume it.
   *
   * @throws DpMoeError FILE_NOT_FOUND when there is no run; FILE_ACCESS
   */
  static async open(path: string): Promise<RunFolder> {
    const absolute = resolve(path)
    const file = join(absolute, 'private', 'secret')
    let text: string
    try {
      text = await readFile(file, 'utf8')
    } catch (error) {
      if (systemErrorCode(error) !== 'ENOENT' && systemErrorCode(error) !== 'ENOTDIR')
        throw fileError(error, 'read', file)
      throw new DpMoeError(
        'FILE_NOT_FOUND',
        `${absolute} holds no run to resume (no ${file}). Check the path, or start a run there without --resume`,
        { cause: error },
      )
    }
    const secret = Buffer.from(text.trim(), 'hex')
    if (secret.byteLength !== SECRET_BYTES) {
      throw new DpMoeError(
        'CHECKPOINT_DAMAGED',
        `Expected ${2 * SECRET_BYTES} hex digits in ${file}, got ${text.length} characters. Restore it; without it the ` +
          "run's configuration and data cannot be compared with its ledger",
      )
    }
    return new RunFolder(absolute, secret)
  }

  get releaseFolder(): string {
    return join(this.path, 'release')
  }

  get privateFolder(): string {
    return join(this.path, 'private')
  }

  get ledgerFile(): string {
    return join(this.privateFolder, 'ledger.jsonl')
  }

  get configurationFile(): string {
    return join(this.privateFolder, 'configuration.json')
  }

  get metricsFile(): string {
    return join(this.privateFolder, 'metrics.jsonl')
  }

  get checkpointsFolder(): string {
    return join(this.privateFolder, 'checkpoints')
  }

  /** Whether the model was released, or its adapters: the last thing a run does. */
  hasRelease(): Promise<boolean> {
    return isThere(join(this.releaseFolder, certificateFile))
  }

  /** Whether the run is private and was begun. */
  hasLedger(): Promise<boolean> {
    return isThere(this.ledgerFile)
  }

  /** Notes what the run is configured with, to tell on resume what differs. */
  async writeConfiguration(configured: unknown): Promise<void> {
    await replaceFile(this.configurationFile, `${JSON.stringify(configured)}\n`)
  }

  /** What was noted; undefined where it is damaged or not there. */
  async readConfiguration(): Promise<unknown> {
    try {
      return JSON.parse(await readFile(this.configurationFile, 'utf8'))
    } catch (error) {
      if (error instanceof SyntaxError || systemErrorCode(error) !== undefined) return undefined
      throw error
    }
  }

  /** Removes a run that failed before its first step, and the folders that were made for it. Nothing was spent. */
  async discard(): Promise<void> {
    await removeFolder(this.releaseFolder)
    await removeFolder(this.privateFolder)
    if (this.#madeFirst !== undefined) await removeEmptyFolders(this.path, this.#madeFirst)
  }

  /** Removes what a killed process left half written. Call it once the ledger's lock is held. */
  async removeTemporaries(): Promise<void> {
    await withFileErrors('remove', this.path, async () => {
      await removeTemporaries(this.path)
      await removeTemporaries(this.privateFolder)
      await removeTemporaries(this.checkpointsFolder)
    })
  }

  /**
   * Writes the release as a whole: after a crash or a full disk there is either none, or all of it.
   *
   * @param write makes model.safetensors, config.json and certificate.json in the folder it is given
   */
  async writeRelease(write: (folder: string) => Promise<void>): Promise<void> {
    await writeFolderAtomically(this.releaseFolder, write, { replace: true })
  }
}

/**
 * The release folder that a user means by `path`: that of a run, or a release folder itself.
 *
 * @throws DpMoeError FILE_NOT_FOUND when neither is there
 */
export async function findReleaseFolder(path: string): Promise<string> {
  const absolute = resolve(path)
  for (const folder of [join(absolute, 'release'), absolute]) {
    if (await isThere(join(folder, 'config.json'))) return folder
    if (await isThere(join(folder, 'adapter_config.json'))) return folder
  }
  const unfinished = await isThere(join(absolute, 'private'))
  throw new DpMoeError(
    'FILE_NOT_FOUND',
    unfinished
      ? `The run in ${absolute} has not finished, so it has no model yet. Resume it (--resume) until it ends`
      : `${absolute} holds no model (no config.json, no release/config.json). Check the path`,
  )
}

async function mkdirOrFile(path: string): Promise<string | undefined> {
  try {
    return await mkdir(path, { recursive: true })
  } catch (error) {
    // Node reports ENOENT for the whole chain on a read-only file system; a single folder fails with the true reason.
    if (systemErrorCode(error) === 'ENOENT') await mkdir(await highestMissing(path))
    if (systemErrorCode(error) !== 'EEXIST') throw error
    throw new DpMoeError('FILE_EXISTS', `The output ${path} is a file. Choose another folder`, { cause: error })
  }
}

/** Removes the folders from `path` up to `first`, as far as they are empty: others may have come to use them. */
async function removeEmptyFolders(path: string, first: string): Promise<void> {
  try {
    for (let folder = path; folder.length >= first.length; folder = dirname(folder)) await rmdir(folder)
  } catch (error) {
    if (systemErrorCode(error) === undefined) throw error
  }
}

/** Makes the folders from `first` down to `path` durable, each in the one above it. */
async function syncParents(path: string, first: string): Promise<void> {
  for (let folder = path; folder.length >= first.length; folder = dirname(folder)) await syncFolder(dirname(folder))
}

async function highestMissing(path: string): Promise<string> {
  const parent = dirname(path)
  return (await isThere(parent)) ? path : await highestMissing(parent)
}

/** Makes sure that nothing is in the way in an existing folder. */
async function clear(path: string, overwrite: boolean): Promise<void> {
  const names = await readdir(path)
  if (names.length === 0) return
  const isRun = names.every((name) => name === 'release' || name === 'private' || name.endsWith('.dp-moe-tmp'))
  if (!overwrite || !isRun) {
    const held = names.slice(0, 3).join(', ') + (names.length > 3 ? ', ...' : '')
    const remedy = isRun
      ? 'Choose another folder, go on with the run in it (--resume), or replace that run (--overwrite)'
      : 'Choose another folder: it is not a run, so it will not be replaced'
    throw new DpMoeError('FILE_EXISTS', `The output folder ${path} is not empty (${held}). ${remedy}`)
  }
  const ledger = join(path, 'private', 'ledger.jsonl')
  if (await isThere(ledger)) await (await lockFile(ledger)).release() // refuses while a process is writing the run
  await removeFolder(join(path, 'release'))
  await removeFolder(join(path, 'private'))
  await removeTemporaries(path)
  await syncFolder(path)
}

async function isThere(path: string): Promise<boolean> {
  try {
    await stat(path)
    return true
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT' || systemErrorCode(error) === 'ENOTDIR') return false
    throw fileError(error, 'read', path)
  }
}
