import { createHash, type Hash, randomUUID } from 'node:crypto'
import { mkdir, open, readFile, rename, rm } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { withFileErrors, writeFully } from '../files.js'
import { fromCache, lackOf, removeAbandoned, snapshotOf, storeOf, writeListing, writeReference } from './cache.js'
import { arrivedWrong, hubError, isNetworkError, notCached, reasonOf } from './failure.js'
import { type HubFile, isInside } from './files.js'
import { isCommit, isRepositoryName, isRevision, type Repository, type Wanted, WORD } from './repository.js'

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

/**
 * Downloads files of a repository into the cache, which other programs of the hub share. What the cache holds is not
 * downloaded again, unless it was cut. Without a network the wanted files are chosen from what the hub said when it was last
 * asked, and each has to be there in full.
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
  if (!isRevision(revision)) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a branch, tag or commit for the revision, got '${revision}'`)
  }
  const store = storeOf(repository, options.cacheFolder)
  const fromCacheAlone = (why: string, cause?: unknown) =>
    fromCache(store, revision, wanted, (lack) => notCached(repository, name, `${why}, and ${lack}`, cause))
  if (offline) return await fromCacheAlone('the network is switched off')
  let found: { commit: string; files: HubFile[] }
  try {
    found = await listRepository(repository, revision, options)
  } catch (error) {
    if (signal?.aborted || !isNetworkError(error)) throw hubError(repository, options, error)
    return await fromCacheAlone(reasonOf(error), error)
  }
  const { commit, files } = found
  await writeListing(store, commit, files)
  const folder = snapshotOf(store, commit)
  const download = async (wantedFiles: readonly HubFile[], onProgress: HubOptions['onProgress']) => {
    const missing: HubFile[] = []
    for (const file of wantedFiles) if ((await lackOf(folder, file)) !== undefined) missing.push(file)
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
  await writeReference(store, revision, commit)
  return result(folder)
}

const isSet = (variable: string | undefined) => variable !== undefined && !['', '0', 'false'].includes(variable)

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
  if (!isCommit(commit)) throw new TypeError(`the hub named '${commit}' as a commit`)
  const files: HubFile[] = []
  const recursive = type === 'dataset'
  for await (const entry of listFiles({ repo: { type, name }, revision: commit, recursive, ...access })) {
    if (entry.type !== 'file' || !isInside(entry.path)) continue
    files.push({ path: entry.path, size: entry.size, gitHash: entry.oid, sha256: entry.lfs?.oid })
  }
  return { commit, files }
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
  await withFileErrors('remove', path, () => removeAbandoned(path))
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
        if (at + piece.byteLength > file.size) throw arrivedWrong(repository, file.path, `more than ${file.size} bytes`)
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
      throw arrivedWrong(repository, file.path, got)
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

function hashOf({ sha256, gitHash, size }: HubFile): Hash | undefined {
  if (sha256 !== undefined) return createHash('sha256')
  if (gitHash === undefined) return undefined
  return createHash(gitHash.length === 64 ? 'sha256' : 'sha1').update(`blob ${size}\0`)
}
