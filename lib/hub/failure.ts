import { existsSync } from 'node:fs'
import { DpMoeError } from '../errors.js'
import { type Repository, WORD } from './repository.js'

const REMEDY = { model: 'folder that holds the model', dataset: 'file that holds the data' } as const

/** Whether the hub could not be asked: then the cache may do. */
export function isNetworkError(error: unknown): boolean {
  return statusOf(error) === undefined || statusOf(error)! >= 500
}

function statusOf(error: unknown): number | undefined {
  return error instanceof Error && 'statusCode' in error ? Number(error.statusCode) : undefined
}

/** An error of the hub or of the way to it as ours. */
export function hubError(
  repository: Repository,
  { revision = 'main', signal }: { readonly revision?: string; readonly signal?: AbortSignal },
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
  const here = noFolder(repository)
  if (status === 404) {
    const message = `There is no ${WORD[type]} ${name} with revision '${revision}' on the hub${here}. Check the name`
    return new DpMoeError('FILE_NOT_FOUND', message, { cause: error })
  }
  if (status === 401 || status === 403) {
    const message = `${name} does not exist on the hub, or asks for a token${here}. Check the name, or set HF_TOKEN`
    return new DpMoeError('FILE_ACCESS', message, { cause: error })
  }
  return notCached(repository, what, reasonOf(error), error)
}

/** What fetch hides behind "fetch failed"; the hub's library breaks a body off with a sentence alone. */
export function reasonOf(error: unknown): string {
  if (typeof error === 'string') return error
  const { message, cause } = error as Error
  return cause instanceof Error ? `${message}: ${cause.message}` : message
}

export function notCached(repository: Repository, what: string, why: string, cause?: unknown): DpMoeError {
  const remedy = `Connect to the network, or name a ${REMEDY[repository.type]}`
  return new DpMoeError('NETWORK', `Cannot download ${what}: ${why}${noFolder(repository)}. ${remedy}`, { cause })
}

/** A folder's name relative to another folder looks like a model of the hub. */
function noFolder({ type, name }: Repository): string {
  return type === 'model' && !existsSync(name) ? `; there is no folder ${name} here either` : ''
}

export function arrivedWrong({ name }: Repository, path: string, got: string): DpMoeError {
  return new DpMoeError('MODEL_FORMAT', `${name}: ${path} arrived with ${got}; nothing of it is kept. Try again`)
}
