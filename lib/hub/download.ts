import { createHash, type Hash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { replaceFile, withFileErrors, writeFully } from '../files.js'
import type { HubFile } from './files.js'

/** Bytes of a download that are there. */
export interface HubProgress {
  readonly file: string
  readonly fileBytes: number
  readonly bytes: number
  readonly totalBytes: number
}

export interface HubOptions {
  /** Branch, tag or commit. Default 'main'. */
  readonly revision?: string
  /** Default: HF_HUB_CACHE, else HF_HOME/hub, else ~/.cache/huggingface/hub. */
  readonly cacheFolder?: string
  /** Use the cache only. Default: HF_HUB_OFFLINE. */
  readonly offline?: boolean
  /** For private models. Default: HF_TOKEN. */
  readonly accessToken?: string
  /** Default: HF_ENDPOINT, else the public hub. */
  readonly hubUrl?: string
  readonly onProgress?: (progress: HubProgress) => void
  readonly signal?: AbortSignal
}

/** A repository of the hub. */
export interface Repository {
  readonly type: 'model' | 'dataset'
  /** owner/name */
  readonly name: string
}

/** Which files of a repository are wanted. */
export interface Wanted<T> {
  /** From all files there are; `read` gives the content of a small one. */
  choose(files: readonly HubFile[], read: (path: string) => Promise<string>): Promise<Chosen<T>>
  /** The same from the cache alone; undefined where it does not hold all of them. */
  fromCache(folder: string): Promise<T | undefined>
}

export interface Chosen<T> {
  readonly files: readonly HubFile[]
  /** What the files are, once they are there. */
  readonly result: (folder: string) => T
}

const NAME = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/

/** Whether a text has the form owner/name. */
export function isRepositoryName(name: string): boolean {
  return NAME.test(name) && !name.includes('..')
}

/**
 * Downloads files of a repository into the cache, which other programs of the hub share. What the cache holds is not
 * downloaded again; without a network it is used as it is.
 *
 * Guarantee. A file is under its name only once all of it is there and has the checksum that the hub states, and inside its
 * repository's folder.
 *
 * @throws DpMoeError NETWORK, FILE_NOT_FOUND, FILE_ACCESS, MODEL_FORMAT (another checksum), DISK_FULL, ABORTED
 */
export async function downloadRepository<T>(
  repository: Repository,
  options: HubOptions,
  wanted: Wanted<T>,
): Promise<T> {
  const { type, name } = repository
  const { revision = 'main', offline = isSet(process.env.HF_HUB_OFFLINE), signal } = options
  if (!isRepositoryName(name)) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a ${WORD[type]} as owner/name, got '${name}'`)
  }
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(revision) || revision.includes('..')) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a branch, tag or commit for the revision, got '${revision}'`)
  }
  const store = join(options.cacheFolder ?? cacheFolder(), `${type}s--${name.replace('/', '--')}`)
  const fromCache = async () => wanted.fromCache(await snapshotOf(store, revision))
  if (offline) {
    return (await fromCache()) ?? Promise.reject(notCached(repository, name, 'the network is switched off'))
  }
  let found: { commit: string; files: HubFile[] }
  try {
    found = await listRepository(repository, revision, options)
  } catch (error) {
    const cached = isNetworkError(error) ? await fromCache() : undefined
    if (cached !== undefined) return cached
    throw hubError(repository, options, error)
  }
  const { commit, files } = found
  const folder = join(store, 'snapshots', commit)
  const download = async (wantedFiles: readonly HubFile[], onProgress: HubOptions['onProgress']) => {
    const missing = wantedFiles.filter(({ path }) => !existsSync(join(folder, path)))
    const totalBytes = missing.reduce((sum, { size }) => sum + size, 0)
    let bytes = 0
    for (const file of missing) {
      if (signal?.aborted) throw hubError(repository, options, signal.reason, file.path)
      const report = (fileBytes: number) =>
        onProgress?.({ file: file.path, fileBytes, bytes: bytes + fileBytes, totalBytes })
      await downloadFile(repository, commit, file, folder, options, report)
      bytes += file.size
    }
  }
  const read = async (path: string) => {
    await download(
      files.filter((file) => file.path === path),
      undefined,
    )
    return withFileErrors('read', join(folder, path), () => readFile(join(folder, path), 'utf8'))
  }
  const { files: chosen, result } = await wanted.choose(files, read)
  await download(chosen, options.onProgress)
  if (revision !== commit) {
    const reference = join(store, 'refs', revision)
    await withFileErrors('create', reference, () => mkdir(dirname(reference), { recursive: true }))
    await replaceFile(reference, commit)
  }
  return result(folder)
}

const REMEDY = { model: 'folder that holds the model', dataset: 'file that holds the data' } as const

const WORD = { model: 'model', dataset: 'data set' } as const

function cacheFolder(): string {
  const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env
  return HF_HUB_CACHE ?? join(HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface'), 'hub')
}

const isSet = (variable: string | undefined) => variable !== undefined && !['', '0', 'false'].includes(variable)

/** Where the cache keeps a revision, if it does. */
async function snapshotOf(store: string, revision: string): Promise<string> {
  const commit = await readFile(join(store, 'refs', revision), 'utf8').catch(() => revision)
  return join(store, 'snapshots', commit.trim())
}

const credentials = ({ accessToken = process.env.HF_TOKEN, hubUrl = process.env.HF_ENDPOINT }: HubOptions) => ({
  ...(accessToken ? { accessToken } : {}),
  ...(hubUrl ? { hubUrl } : {}),
})

async function listRepository({ type, name }: Repository, revision: string, options: HubOptions) {
  const { datasetInfo, listFiles, modelInfo } = await import('@huggingface/hub')
  const access = { ...credentials(options), fetch: fetchUntil(options.signal) }
  const asked = { name, revision, ...access }
  const { sha: commit } =
    type === 'model'
      ? await modelInfo({ ...asked, additionalFields: ['sha'] })
      : await datasetInfo({ ...asked, additionalFields: ['sha'] })
  if (!/^[0-9a-f]{40}$/.test(commit)) throw new TypeError(`the hub named '${commit}' as a commit`)
  const files: HubFile[] = []
  const recursive = type === 'dataset'
  for await (const entry of listFiles({ repo: { type, name }, revision: commit, recursive, ...access })) {
    if (entry.type !== 'file' || !isInside(entry.path)) continue
    files.push({ path: entry.path, size: entry.size, gitHash: entry.oid, sha256: entry.lfs?.oid })
  }
  return { commit, files }
}

/** Whether a path of a repository stays in its folder. */
function isInside(path: string): boolean {
  return !path.includes('\\') && path.split('/').every((part) => part !== '' && part !== '.' && part !== '..')
}

function fetchUntil(signal: AbortSignal | undefined): typeof fetch {
  return (input, init) => fetch(input, { ...init, ...(signal && { signal }) })
}

async function downloadFile(
  repository: Repository,
  revision: string,
  file: HubFile,
  folder: string,
  options: HubOptions,
  report: (bytes: number) => void,
): Promise<void> {
  const hub = await import('@huggingface/hub')
  const path = join(folder, file.path)
  // Another thread, or a container that shares the cache, may have the same process id.
  const partial = `${path}.${randomUUID()}.incomplete`
  await withFileErrors('create', path, () => mkdir(dirname(path), { recursive: true }))
  const handle = await withFileErrors('write', path, () => open(partial, 'w'))
  try {
    const hash = hashOf(file)
    let at = 0
    try {
      const access = { ...credentials(options), fetch: fetchUntil(options.signal), xet: false }
      const blob = await hub.downloadFile({ repo: repository, path: file.path, revision, ...access })
      if (blob === null) throw new TypeError('it is not there any more')
      for await (const piece of blob.stream() as unknown as AsyncIterable<Uint8Array>) {
        options.signal?.throwIfAborted()
        if (at + piece.byteLength > file.size) throw arrivedWrong(repository, file, `more than ${file.size} bytes`)
        hash?.update(piece)
        await withFileErrors('write', path, () => writeFully(handle, piece, at))
        at += piece.byteLength
        report(at)
      }
    } catch (error) {
      throw hubError(repository, options, error, file.path)
    }
    const expected = file.sha256 ?? file.gitHash
    if (at !== file.size || (hash && hash.digest('hex') !== expected)) {
      const got = at === file.size ? 'another checksum' : `${at} of ${file.size} bytes`
      throw arrivedWrong(repository, file, got)
    }
    await withFileErrors('write', path, () => handle.datasync())
    await handle.close()
    await withFileErrors('write', path, () => rename(partial, path))
  } catch (error) {
    await handle.close().catch(() => {})
    await rm(partial, { force: true })
    throw error
  }
}

function arrivedWrong({ name }: Repository, { path }: HubFile, got: string): DpMoeError {
  return new DpMoeError('MODEL_FORMAT', `${name}: ${path} arrived with ${got}; nothing of it is kept. Try again`)
}

function hashOf({ sha256, gitHash, size }: HubFile): Hash | undefined {
  if (sha256 !== undefined) return createHash('sha256')
  if (gitHash === undefined) return undefined
  return createHash(gitHash.length === 64 ? 'sha256' : 'sha1').update(`blob ${size}\0`)
}

function isNetworkError(error: unknown): boolean {
  return statusOf(error) === undefined || statusOf(error)! >= 500
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : undefined
}

function hubError(
  repository: Repository,
  { revision = 'main', signal }: HubOptions,
  error: unknown,
  file?: string,
): unknown {
  if (error instanceof DpMoeError) return error
  const { type, name } = repository
  const what = file === undefined ? name : `${name}: ${file}`
  if (signal?.aborted) {
    return new DpMoeError('ABORTED', `Stopped while downloading ${what}`, { cause: error })
  }
  const status = statusOf(error)
  if (status === 404) {
    const message = `There is no ${WORD[type]} ${name} with revision '${revision}' on the hub. Check the name`
    return new DpMoeError('FILE_NOT_FOUND', message, { cause: error })
  }
  if (status === 401 || status === 403) {
    const message = `${name} does not exist on the hub, or asks for a token. Check the name, or set HF_TOKEN`
    return new DpMoeError('FILE_ACCESS', message, { cause: error })
  }
  return notCached(repository, what, reasonOf(error), error)
}

/** What fetch hides behind "fetch failed"; the hub's library breaks a body off with a sentence alone. */
function reasonOf(error: unknown): string {
  if (typeof error === 'string') return error
  const { message, cause } = error as Error
  return cause instanceof Error ? `${message}: ${cause.message}` : message
}

function notCached({ type, name }: Repository, what: string, why: string, cause?: unknown): DpMoeError {
  const folder = type === 'model' && !existsSync(name) ? `; there is no folder ${name} here either` : ''
  const message = `Cannot download ${what}: ${why}${folder}. Connect to the network, or name a ${REMEDY[type]}`
  return new DpMoeError('NETWORK', message, { cause })
}
