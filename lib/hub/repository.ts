import type { HubFile } from './files.js'

/** A repository of the hub. */
export interface Repository {
  readonly type: 'model' | 'dataset'
  /** owner/name */
  readonly name: string
}

/** Which files of a repository are wanted. */
export interface Wanted<T> {
  /** From all files that the hub says there are; `read` gives the content of a small one. */
  choose(files: readonly HubFile[], read: (path: string) => Promise<string>): Promise<Chosen<T>>
  /**
   * From a folder of the cache of which nobody knows what the hub says, as other programs leave it; undefined where not all
   * is there. Without it such a folder is never enough.
   */
  fromUnlisted?(folder: string): Promise<T | undefined>
}

export interface Chosen<T> {
  readonly files: readonly HubFile[]
  /** What the files are, once they are there. */
  readonly result: (folder: string) => T
}

/** What a message calls a repository. */
export const WORD = { model: 'model', dataset: 'data set' } as const

const NAME = /^[A-Za-z0-9][\w.-]*\/[A-Za-z0-9][\w.-]*$/

/** Whether a text has the form owner/name. */
export function isRepositoryName(name: string): boolean {
  return NAME.test(name) && !name.includes('..')
}

/** Whether a text can name a branch, a tag or a commit, and is a path that stays in its folder. */
export function isRevision(revision: string): boolean {
  return /^\w[\w.-]*(\/\w[\w.-]*)*$/.test(revision) && !revision.includes('..')
}

/** Whether a text is the full name of a commit. */
export function isCommit(text: string): boolean {
  return /^[0-9a-f]{40}$/.test(text)
}
