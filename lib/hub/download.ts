import { createHash, type Hash, randomUUID } from 'node:crypto'
import { existsSync } from 'node:fs'
import { mkdir, open, readdir, readFile, rename, rm } from 'node:fs/promises'
import { homedir } from 'node:os'
import { dirname, join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { replaceFile, withFileErrors, writeFully } from '../files.js'
import { filesOfModel, type HubFile, INDEX, WEIGHTS } from './files.js'

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

const NAME = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/

/** Whether `model` names a model on the hub: `owner/name`, and no folder of that name. */
export function isHubName(model: string): boolean {
  return NAME.test(model) && !model.includes('..') && !existsSync(model)
}

/** The folder of a model: `model` where it is one, else the downloaded `owner/name`. */
export async function modelFolder(model: string, options: HubOptions = {}): Promise<string> {
  return isHubName(model) ? await downloadModel(model, options) : model
}

/**
 * Downloads a model and returns its folder in the cache, which other programs of the hub share. What the cache holds is not
 * downloaded again; without a network it is used as it is.
 *
 * Guarantee. A file is under its name only once all of it is there and has the checksum that the hub states.
 *
 * @throws DpMoeError NETWORK, when the hub cannot be reached and the cache does not hold the model, or a download breaks off;
 *   FILE_NOT_FOUND, when there is no such model or revision; FILE_ACCESS, when it is private; MODEL_FORMAT, when it has no
 *   safetensors weights, or a file with another checksum; DISK_FULL; ABORTED
 */
export async function downloadModel(name: string, options: HubOptions = {}): Promise<string> {
  const { revision = 'main', offline = isSet(process.env.HF_HUB_OFFLINE), signal } = options
  if (!NAME.test(name) || name.includes('..')) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a model as owner/name, got '${name}'`)
  }
  if (!/^[\w.-]+(\/[\w.-]+)*$/.test(revision) || revision.includes('..')) {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a branch, tag or commit for the revision, got '${revision}'`)
  }
  const store = join(options.cacheFolder ?? cacheFolder(), `models--${name.replace('/', '--')}`)
  if (offline) return (await cached(store, revision)) ?? Promise.reject(notCached(name, 'the network is switched off'))
  let found: { commit: string; files: HubFile[] }
  try {
    found = await listModel(name, revision, options)
  } catch (error) {
    const folder = isNetworkError(error) ? await cached(store, revision) : undefined
    if (folder !== undefined) return folder
    throw hubError(name, options, error)
  }
  const { commit } = found
  const files = filesOfModel(name, found.files)
  const folder = join(store, 'snapshots', commit)
  const missing = files.filter(({ path }) => !existsSync(join(folder, path)))
  const totalBytes = missing.reduce((sum, { size }) => sum + size, 0)
  let bytes = 0
  for (const file of missing) {
    if (signal?.aborted) throw hubError(name, options, signal.reason, file.path)
    const report = (fileBytes: number) =>
      options.onProgress?.({ file: file.path, fileBytes, bytes: bytes + fileBytes, totalBytes })
    await downloadFile(name, commit, file, folder, options, report)
    bytes += file.size
  }
  if (revision !== commit) {
    const reference = join(store, 'refs', revision)
    await withFileErrors('create', reference, () => mkdir(dirname(reference), { recursive: true }))
    await replaceFile(reference, commit)
  }
  return folder
}

function cacheFolder(): string {
  const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env
  return HF_HUB_CACHE ?? join(HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface'), 'hub')
}

const isSet = (variable: string | undefined) => variable !== undefined && !['', '0', 'false'].includes(variable)

/** The snapshot of a revision, where the cache holds all of it. */
async function cached(store: string, revision: string): Promise<string | undefined> {
  const commit = await readFile(join(store, 'refs', revision), 'utf8').catch(() => revision)
  const folder = join(store, 'snapshots', commit.trim())
  const present: string[] = await readdir(folder).catch(() => [])
  if (!present.includes('config.json')) return undefined
  if (present.includes(WEIGHTS)) return folder
  if (!present.includes(INDEX)) return undefined
  const shards = await readFile(join(folder, INDEX), 'utf8').then(
    (text) => Object.values((JSON.parse(text) as { weight_map?: Record<string, string> }).weight_map ?? {}),
    () => [undefined],
  )
  return shards.every((shard) => shard !== undefined && present.includes(shard)) ? folder : undefined
}

const credentials = ({ accessToken = process.env.HF_TOKEN, hubUrl = process.env.HF_ENDPOINT }: HubOptions) => ({
  ...(accessToken ? { accessToken } : {}),
  ...(hubUrl ? { hubUrl } : {}),
})

async function listModel(name: string, revision: string, options: HubOptions) {
  const { listFiles, modelInfo } = await import('@huggingface/hub')
  const fetch = fetchUntil(options.signal)
  const access = { ...credentials(options), fetch }
  const { sha: commit } = await modelInfo({ name, revision, additionalFields: ['sha'], ...access })
  if (!/^[0-9a-f]{40}$/.test(commit)) throw new TypeError(`the hub named '${commit}' as a commit`)
  const files: HubFile[] = []
  for await (const entry of listFiles({ repo: name, revision: commit, ...access })) {
    if (entry.type !== 'file') continue
    files.push({ path: entry.path, size: entry.size, gitHash: entry.oid, sha256: entry.lfs?.oid })
  }
  return { commit, files }
}

function fetchUntil(signal: AbortSignal | undefined): typeof fetch {
  return (input, init) => fetch(input, { ...init, ...(signal && { signal }) })
}

async function downloadFile(
  name: string,
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
      const blob = await hub.downloadFile({ repo: name, path: file.path, revision, ...access })
      if (blob === null) throw new TypeError('it is not there any more')
      for await (const piece of blob.stream() as unknown as AsyncIterable<Uint8Array>) {
        options.signal?.throwIfAborted()
        if (at + piece.byteLength > file.size) throw arrivedWrong(name, file, `more than ${file.size} bytes`)
        hash?.update(piece)
        await withFileErrors('write', path, () => writeFully(handle, piece, at))
        at += piece.byteLength
        report(at)
      }
    } catch (error) {
      throw hubError(name, options, error, file.path)
    }
    const expected = file.sha256 ?? file.gitHash
    if (at !== file.size || (hash && hash.digest('hex') !== expected)) {
      const got = at === file.size ? 'another checksum' : `${at} of ${file.size} bytes`
      throw arrivedWrong(name, file, got)
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

function arrivedWrong(name: string, { path }: HubFile, got: string): DpMoeError {
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

function hubError(name: string, { revision = 'main', signal }: HubOptions, error: unknown, file?: string): unknown {
  if (error instanceof DpMoeError) return error
  const what = file === undefined ? name : `${name}: ${file}`
  if (signal?.aborted) {
    return new DpMoeError('ABORTED', `Stopped while downloading ${what}`, { cause: error })
  }
  const status = statusOf(error)
  if (status === 404) {
    const message = `There is no model ${name} with revision '${revision}' on the hub. Check the name`
    return new DpMoeError('FILE_NOT_FOUND', message, { cause: error })
  }
  if (status === 401 || status === 403) {
    const message = `${name} does not exist on the hub, or asks for a token. Check the name, or set HF_TOKEN`
    return new DpMoeError('FILE_ACCESS', message, { cause: error })
  }
  return notCached(what, reasonOf(error), error)
}

/** What fetch hides behind "fetch failed"; the hub's library breaks a body off with a sentence alone. */
function reasonOf(error: unknown): string {
  if (typeof error === 'string') return error
  const { message, cause } = error as Error
  return cause instanceof Error ? `${message}: ${cause.message}` : message
}

function notCached(what: string, why: string, cause?: unknown): DpMoeError {
  const message = `Cannot download ${what}: ${why}. Connect to the network, or name a folder that holds the model`
  return new DpMoeError('NETWORK', message, { cause })
}
