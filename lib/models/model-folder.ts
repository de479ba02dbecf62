import { mkdir, readdir, readFile, realpath, rmdir } from 'node:fs/promises'
import { basename, dirname, join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { fileError, isWithin, replaceFile, systemErrorCode, withFileErrors, writeFolderAtomically } from '../files.js'
import { configFile, exists, indexFile } from './hugging-face/checkpoint.js'

/** What lies beside the weights and is copied as it is. */
const companions = [
  'generation_config.json',
  'tokenizer.json',
  'tokenizer_config.json',
  'special_tokens_map.json',
  'added_tokens.json',
  'chat_template.jinja',
  'vocab.txt',
  'vocab.json',
  'merges.txt',
  'spiece.model',
  'tokenizer.model',
]

/** What it says of a model holds for all that is made of that model alone. */
export const certificateFile = 'certificate.json'

/** Copies the tokenizer and what else lies beside the weights of a model folder. */
export async function copyCompanions(from: string, to: string): Promise<void> {
  for (const name of companions) await copyIfThere(from, to, name)
}

/** Writes a folder as a whole, and the folders above it that are missing; when anything fails, nothing is left. */
export async function writeModelFolder(
  target: string,
  overwrite: boolean,
  write: (temporary: string) => Promise<void>,
): Promise<void> {
  const madeFirst = await withFileErrors('create', target, () => mkdir(dirname(target), { recursive: true }))
  try {
    await writeFolderAtomically(target, write, { replace: overwrite })
  } catch (error) {
    if (madeFirst !== undefined) await removeEmptyFolders(dirname(target), madeFirst)
    throw error
  }
}

/** Copies a small file where it is there. */
export async function copyIfThere(from: string, to: string, name: string): Promise<void> {
  const source = join(from, name)
  if (!(await exists(source))) return
  await replaceFile(join(to, name), await withFileErrors('read', source, () => readFile(source)))
}

/** Removes the folders from `last` up to `first`, as far as they are empty. */
async function removeEmptyFolders(last: string, first: string): Promise<void> {
  for (let folder = last; folder.startsWith(first); folder = dirname(folder)) {
    const removed = await rmdir(folder).then(
      () => true,
      () => false,
    )
    if (!removed) return
  }
}

/** Refuses a folder that holds what would be lost. */
export async function requireFreeFolder(target: string, source: string, overwrite: boolean): Promise<void> {
  const names = await namesIn(target)
  if (names.length === 0) return
  if (!overwrite) {
    throw new DpMoeError('FILE_EXISTS', `${target} is not empty. Choose another folder, or --overwrite the model in it`)
  }
  const isOfModel = (name: string) =>
    [configFile, indexFile, certificateFile, ...companions].includes(name) || name.endsWith('.safetensors')
  const foreign = names.find((name) => !isOfModel(name))
  if (foreign !== undefined || !names.includes(configFile)) {
    const what = foreign === undefined ? `no ${configFile}` : `'${foreign}'`
    throw new DpMoeError(
      'FILE_EXISTS',
      `${target} holds ${what}, and only a model and nothing else is overwritten. Choose another folder`,
    )
  }
  await requireNotHeld(target, source)
}

/** Refuses to write a folder that is, or lies in, or holds any of, a model that is read; links are followed. */
export async function requireApart(target: string, source: string): Promise<void> {
  await requireNotHeld(target, source)
  if (isWithin(await realPathOf(target), await realpath(source))) {
    throw new DpMoeError('FILE_EXISTS', `${target} lies in ${source}, the model that is read. Choose another folder`)
  }
}

async function requireNotHeld(target: string, source: string): Promise<void> {
  const written = await realPathOf(target)
  const refuse = (what: string) => {
    throw new DpMoeError('FILE_EXISTS', `${target} ${what} the model that is read. Choose another folder`)
  }
  if (written === (await realPathOf(source))) refuse('is')
  for (const path of [source, ...(await namesIn(source)).map((name) => join(source, name))]) {
    if (isWithin(await realPathOf(path), written)) refuse(`holds ${path}, of`)
  }
}

/** A path without links, of what is there of it. */
async function realPathOf(path: string): Promise<string> {
  try {
    return await realpath(path)
  } catch (error) {
    if (systemErrorCode(error) !== 'ENOENT') throw fileError(error, 'read', path)
    return join(await realPathOf(dirname(path)), basename(path))
  }
}

async function namesIn(folder: string): Promise<string[]> {
  try {
    return await withFileErrors('create', folder, () => readdir(folder))
  } catch (error) {
    if (error instanceof DpMoeError && systemErrorCode(error.cause) === 'ENOENT') return []
    throw error
  }
}
