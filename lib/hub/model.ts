import { existsSync } from 'node:fs'
import { readdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { DpMoeError } from '../errors.js'
import { downloadRepository, type HubOptions } from './download.js'
import { filesOfModel, INDEX, WEIGHTS } from './files.js'
import { isRepositoryName } from './repository.js'

/** Whether `model` names a model on the hub: `owner/name`, and no folder of that name. */
export function isHubName(model: string): boolean {
  return isRepositoryName(model) && !existsSync(model)
}

/**
 * The folder of a model: `model` where it is one, else the downloaded `owner/name`.
 *
 * @throws DpMoeError FILE_NOT_FOUND where it is neither; as `downloadModel`
 */
export async function modelFolder(model: string, options: HubOptions = {}): Promise<string> {
  if (isHubName(model)) return await downloadModel(model, options)
  if (existsSync(model)) return model
  throw new DpMoeError(
    'FILE_NOT_FOUND',
    `There is no folder ${model}. Check the path; a model of the hub has its owner before it, such as google/switch-base-8`,
  )
}

/**
 * Downloads a model and returns its folder in the cache, which other programs of the hub share. What the cache holds is not
 * downloaded again, unless it was cut; without a network it is used if all files that the hub has listed are there. What another
 * program put there is used if it has a configuration and all weights.
 *
 * Guarantee. A file is under its name only once all of it is there and has the checksum that the hub states.
 *
 * @throws DpMoeError NETWORK, when the hub cannot be reached and the cache does not hold the model, or a download breaks off;
 *   FILE_NOT_FOUND, when there is no such model or revision; FILE_ACCESS, when it is private; MODEL_FORMAT, when it has no
 *   safetensors weights, or a file with another checksum; DISK_FULL; ABORTED
 */
export function downloadModel(name: string, options: HubOptions = {}): Promise<string> {
  return downloadRepository({ type: 'model', name }, options, {
    choose: async (files) => ({ files: filesOfModel(name, files), result: (folder) => folder }),
    fromUnlisted: async (folder) => ((await isWhole(folder)) ? folder : undefined),
  })
}

/** Whether the cache holds all of a model. */
async function isWhole(folder: string): Promise<boolean> {
  const present: string[] = await readdir(folder).catch(() => [])
  if (!present.includes('config.json')) return false
  if (present.includes(WEIGHTS)) return true
  if (!present.includes(INDEX)) return false
  const shards = await readFile(join(folder, INDEX), 'utf8').then(
    (text) => Object.values((JSON.parse(text) as { weight_map?: Record<string, string> }).weight_map ?? {}),
    () => [undefined],
  )
  return shards.every((shard) => shard !== undefined && present.includes(shard))
}
