import { createHash } from 'node:crypto'
import { type FileHandle, mkdir, open, rename, rm } from 'node:fs/promises'
import { dirname, isAbsolute, relative, sep } from 'node:path'
import { DpMoeError, type ErrorCode } from './errors.js'
import { removeLeftovers, type TemporaryKind, temporaryName } from './temporaries.js'

export { removeTemporaries } from './temporaries.js'

/** Largest piece handed to one write or read call: bounded, so that other work gets its turn between pieces. */
const PIECE_BYTES = 16 * 1024 * 1024

/** What the operating system reports, as our code and as a sentence that says what to do. */
const SYSTEM_ERRORS: Record<string, readonly [ErrorCode, string]> = {
  ENOENT: ['FILE_NOT_FOUND', 'it does not exist. Check the path'],
  EACCES: ['FILE_ACCESS', 'permission was denied. Change its permissions, or choose another path'],
  EPERM: ['FILE_ACCESS', 'the operation is not permitted. Change its permissions, or choose another path'],
  EROFS: ['FILE_ACCESS', 'the file system is read-only. Choose a path that can be written'],
  EISDIR: ['FILE_ACCESS', 'it is a folder, and a file was expected. Name a file inside it'],
  ENOTDIR: ['FILE_ACCESS', 'a part of the path is a file, and a folder was expected. Check the path'],
  ENAMETOOLONG: ['FILE_ACCESS', 'the path is too long. Choose a shorter one'],
  ELOOP: ['FILE_ACCESS', 'its symbolic links form a loop. Check the path'],
  EBUSY: ['FILE_ACCESS', 'it is in use. Wait for the other program, or choose another path'],
  EMFILE: ['FILE_ACCESS', 'this process has too many files open. Raise the limit (ulimit -n)'],
  ENFILE: ['FILE_ACCESS', 'the system has too many files open. Close other programs'],
  EIO: ['FILE_ACCESS', 'the disk reported an input/output error. Check the disk, then resume from another path'],
  EEXIST: ['FILE_EXISTS', 'it exists already. Choose another path, or remove it'],
  ENOTEMPTY: ['FILE_EXISTS', 'the folder is not empty. Choose another path, or remove it'],
  ENOSPC: ['DISK_FULL', 'the disk is full. Free some space, then try again'],
  EDQUOT: ['DISK_FULL', 'the disk quota is used up. Free some space, then try again'],
  EFBIG: ['DISK_FULL', 'the file would pass the size limit. Raise the limit (ulimit -f), then try again'],
}

/** What was being done to a file, as its error message says it. */
export type FileAction = 'read' | 'write' | 'create' | 'remove'

/** The operating system's code of an error (`ENOENT`), or undefined when it is not one of its errors. */
export function systemErrorCode(error: unknown): string | undefined {
  const code = error instanceof Error && 'code' in error ? error.code : undefined
  return typeof code === 'string' && 'syscall' in (error as object) ? code : undefined
}

/**
 * Turns an error of the operating system into a `DpMoeError` that says what could not be done, to which path, why, and
 * what to do. An error that is already ours, or that no file call raised, comes back unchanged.
 */
export function fileError(error: unknown, action: FileAction, path: string): unknown {
  const systemCode = systemErrorCode(error)
  if (systemCode === undefined) return error
  const [code, sentence] = SYSTEM_ERRORS[systemCode] ?? ['FILE_ACCESS', 'the operating system refused']
  return new DpMoeError(code, `Cannot ${action} ${path}: ${sentence} (${systemCode})`, { cause: error })
}

/** Runs `work` and maps what the operating system throws with {@link fileError}. */
export async function withFileErrors<T>(action: FileAction, path: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work()
  } catch (error) {
    throw fileError(error, action, path)
  }
}

/** The bytes of a typed array, without a copy. */
export function bytesOf(view: ArrayBufferView): Uint8Array {
  return new Uint8Array(view.buffer, view.byteOffset, view.byteLength)
}

/** Writes every byte: a single write may stop short, notably on a disk that is just filling up. */
export async function writeFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<void> {
  for (let done = 0; done < bytes.byteLength; ) {
    const length = Math.min(PIECE_BYTES, bytes.byteLength - done)
    done += (await handle.write(bytes, done, length, position + done)).bytesWritten
  }
}

/** Fills `bytes` from `position` on and returns how many there were: fewer than asked where the file ends early. */
export async function readFully(handle: FileHandle, bytes: Uint8Array, position: number): Promise<number> {
  let done = 0
  while (done < bytes.byteLength) {
    const length = Math.min(PIECE_BYTES, bytes.byteLength - done)
    const { bytesRead } = await handle.read(bytes, done, length, position + done)
    if (bytesRead === 0) break
    done += bytesRead
  }
  return done
}

/** Makes names created, renamed or removed in a folder durable. Does nothing where folders cannot be opened (Windows). */
export async function syncFolder(folder: string): Promise<void> {
  if (process.platform === 'win32') return
  const handle = await open(folder, 'r')
  try {
    await handle.sync()
  } finally {
    await handle.close()
  }
}

/**
 * Writes a file so that at every moment, and after a crash, `path` is either what it was before or the whole new file:
 * temporary name, flush, rename, flush of the folder. When `write` or the disk fails, nothing is left behind.
 *
 * @param write receives the open temporary file
 */
export async function writeFileAtomically(
  path: string,
  write: (handle: FileHandle) => Promise<void>,
  options: { mode?: number } = {},
): Promise<void> {
  const temporary = temporaryName(path)
  try {
    const handle = await open(temporary, 'wx', options.mode ?? 0o666)
    try {
      await write(handle)
      await handle.sync()
    } finally {
      await handle.close()
    }
    await rename(temporary, path)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { force: true }).catch(() => {})
    throw fileError(error, 'write', path)
  }
}

/** {@link writeFileAtomically} for content that is already in memory. */
export async function replaceFile(
  path: string,
  content: string | Uint8Array,
  options: { mode?: number } = {},
): Promise<void> {
  const bytes = typeof content === 'string' ? Buffer.from(content) : content
  await writeFileAtomically(path, (handle) => writeFully(handle, bytes, 0), options)
}

/**
 * Writes a folder so that `path` is either what it was before or the whole new folder. Without `replace` an existing
 * folder that holds anything is FILE_EXISTS; with it, it is moved aside once the new one is whole, and removed once that has its name. A
 * process that is killed between these two renames leaves none; the old folder is beside it then (`.NAME....old.dp-moe-tmp`) until the
 * next one is whole. What killed processes left half written of this folder is removed first.
 *
 * @param write receives the temporary folder; the files it makes must be flushed ({@link writeFileAtomically} does)
 */
export async function writeFolderAtomically(
  path: string,
  write: (folder: string) => Promise<void>,
  options: { replace?: boolean } = {},
): Promise<void> {
  await removeLeftovers(path, 'new')
  const temporary = temporaryName(path)
  let old: string | undefined
  try {
    await mkdir(temporary)
    await write(temporary)
    await syncFolder(temporary)
    old = await exchange(temporary, path, options.replace ?? false)
    await syncFolder(dirname(path))
  } catch (error) {
    await rm(temporary, { recursive: true, force: true }).catch(() => {})
    throw fileError(error, 'write', path)
  }
  // The new folder is there, whatever becomes of the old one; what cannot be removed is tried again next time.
  if (old !== undefined) await rm(old, { recursive: true }).catch(() => {})
  await removeLeftovers(path, 'old')
}

/** Gives a folder its name; returns where the one is that had it and was replaced. */
async function exchange(from: string, path: string, replace: boolean): Promise<string | undefined> {
  const old = replace ? await moveAside(path, 'old') : undefined
  try {
    await rename(from, path)
  } catch (error) {
    if (old !== undefined) await rename(old, path)
    throw error
  }
  return old
}

/** Gives a folder another name; returns that, or undefined where there is no such folder. */
async function moveAside(path: string, kind: TemporaryKind): Promise<string | undefined> {
  const aside = temporaryName(path, kind)
  try {
    await rename(path, aside)
    return aside
  } catch (error) {
    if (systemErrorCode(error) === 'ENOENT') return undefined
    throw error
  }
}

/** Removes a folder under another name, so that a half removed one is never taken for a whole one. */
export async function removeFolder(path: string): Promise<void> {
  await withFileErrors('remove', path, async () => {
    const aside = await moveAside(path, 'new')
    if (aside !== undefined) await rm(aside, { recursive: true })
  })
}

/** Hands a file's bytes to `receive`, piece by piece. */
export async function readInPieces(path: string, receive: (piece: Uint8Array) => void): Promise<void> {
  await withFileErrors('read', path, async () => {
    const handle = await open(path, 'r')
    try {
      const piece = Buffer.allocUnsafe(1024 * 1024)
      for (let position = 0, length = 1; length > 0; position += length) {
        length = await readFully(handle, piece, position)
        receive(piece.subarray(0, length))
      }
    } finally {
      await handle.close()
    }
  })
}

/** SHA-256 of a file's bytes in hex. */
export async function sha256OfFile(path: string): Promise<string> {
  const hash = createHash('sha256')
  await readInPieces(path, (piece) => hash.update(piece))
  return hash.digest('hex')
}

/** Whether a path is a folder or lies anywhere in it; both without links. */
export function isWithin(path: string, folder: string): boolean {
  const way = relative(folder, path)
  return way !== '..' && !way.startsWith(`..${sep}`) && !isAbsolute(way)
}
