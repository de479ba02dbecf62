import { mkdir, readdir, readFile, rm, stat } from 'node:fs/promises'
import { homedir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { z } from 'zod'
import type { DpMoeError } from '../errors.js'
import { replaceFile, withFileErrors } from '../files.js'
import { type HubFile, isInside } from './files.js'
import { isCommit, type Repository, type Wanted } from './repository.js'

/**
 * The cache is that of other programs of the hub: `refs/<revision>` holds a commit, `snapshots/<commit>` its files. Beside
 * them, `dp-moe-listings/<commit>.json` is what the hub said that there is: what was downloaded does not tell what is missing.
 */
const LISTINGS = 'dp-moe-listings'

const listing = z.array(
  z.object({
    path: z.string().refine(isInside),
    size: z.int().nonnegative(),
    gitHash: z.string().optional(),
    sha256: z.string().optional(),
  }),
)

/** Folder of a repository in the cache. */
export function storeOf({ type, name }: Repository, cacheFolder = defaultCacheFolder()): string {
  return join(cacheFolder, `${type}s--${name.replace('/', '--')}`)
}

function defaultCacheFolder(): string {
  const { HF_HUB_CACHE, HF_HOME, XDG_CACHE_HOME } = process.env
  return HF_HUB_CACHE ?? join(HF_HOME ?? join(XDG_CACHE_HOME ?? join(homedir(), '.cache'), 'huggingface'), 'hub')
}

/** Folder of the files of a commit. */
export function snapshotOf(store: string, commit: string): string {
  return join(store, 'snapshots', commit)
}

/** Remembers what the hub says that a commit holds. */
export async function writeListing(store: string, commit: string, files: readonly HubFile[]): Promise<void> {
  await writeInto(join(store, LISTINGS, `${commit}.json`), JSON.stringify(files))
}

/** Remembers which commit a revision is. */
export async function writeReference(store: string, revision: string, commit: string): Promise<void> {
  if (revision !== commit) await writeInto(join(store, 'refs', revision), commit)
}

async function writeInto(path: string, content: string): Promise<void> {
  await withFileErrors('create', path, () => mkdir(dirname(path), { recursive: true }))
  await replaceFile(path, content)
}

/** What the cache lacks of a file, in words; undefined where it holds all of it. */
export async function lackOf(folder: string, { path, size }: HubFile): Promise<string | undefined> {
  const found = await stat(join(folder, path)).catch(() => undefined)
  if (!found?.isFile()) return `the cache lacks ${path} (${size} bytes)`
  return found.size === size ? undefined : `the cache holds ${found.size} of ${size} bytes of ${path}`
}

/**
 * What is wanted from the cache alone, chosen from what the hub said that there is.
 *
 * @param refuse makes an error of what the cache lacks
 */
export async function fromCache<T>(
  store: string,
  revision: string,
  wanted: Wanted<T>,
  refuse: (lack: string) => DpMoeError,
): Promise<T> {
  const commit = await cachedCommit(store, revision)
  if (commit === undefined) throw refuse(`the cache lacks revision '${revision}'`)
  const folder = snapshotOf(store, commit)
  const files = await readListing(store, commit)
  if (files === undefined) {
    const result = await wanted.fromUnlisted?.(folder)
    if (result !== undefined) return result
    throw refuse('the cache holds it without the list of its files, so what is there may not be all of it')
  }
  const demand = async (file: HubFile) => {
    const lack = await lackOf(folder, file)
    if (lack !== undefined) throw refuse(lack)
  }
  const read = async (path: string) => {
    for (const file of files) if (file.path === path) await demand(file)
    return withFileErrors('read', join(folder, path), () => readFile(join(folder, path), 'utf8'))
  }
  const { files: chosen, result } = await wanted.choose(files, read)
  for (const file of chosen) await demand(file)
  return result(folder)
}

async function cachedCommit(store: string, revision: string): Promise<string | undefined> {
  if (isCommit(revision)) return revision
  const content = await readFile(join(store, 'refs', revision), 'utf8').catch(() => '')
  return isCommit(content.trim()) ? content.trim() : undefined
}

/** What the hub said that a commit holds; undefined where that was not kept, or is damaged. */
async function readListing(store: string, commit: string): Promise<HubFile[] | undefined> {
  try {
    const files = listing.parse(JSON.parse(await readFile(join(store, LISTINGS, `${commit}.json`), 'utf8')))
    return files.map(({ path, size, gitHash, sha256 }) => ({ path, size, gitHash, sha256 }))
  } catch {
    return undefined
  }
}

const PARTIAL = /^\.[0-9a-f-]{36}\.incomplete$/

/** How long nobody has written a partial download that is taken for left over. */
const ABANDONED_MILLISECONDS = 24 * 60 * 60 * 1000

/** Removes what killed downloads of a file left beside it. */
export async function removeAbandoned(path: string): Promise<void> {
  const name = basename(path)
  for (const other of await readdir(dirname(path))) {
    if (!other.startsWith(name) || !PARTIAL.test(other.slice(name.length))) continue
    const partial = join(dirname(path), other)
    const written = await stat(partial).catch(() => undefined)
    if (written && Date.now() - written.mtimeMs > ABANDONED_MILLISECONDS) await rm(partial, { force: true })
  }
}
