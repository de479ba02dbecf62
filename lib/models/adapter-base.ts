import { readFile } from 'node:fs/promises'
import { basename, dirname, join, resolve } from 'node:path'
import { DpMoeError } from '../errors.js'
import { replaceFile, withFileErrors } from '../files.js'
import { type HubOptions, isHubName, modelFolder } from '../hub/index.js'
import { adapterWeightsFile, baseFingerprintKey } from './hugging-face/adapter-config.js'
import { configFile, exists } from './hugging-face/checkpoint.js'
import { modelFingerprint } from './hugging-face/fingerprint.js'
import { SafetensorsFile } from './safetensors.js'

/** What adapters that are published call their base: a name on the hub as it is, a folder by its last part alone. */
export function publicBaseName(name: string): string {
  // With ./ before it, the name of a folder is never one on the hub.
  return isHubName(name) ? name : `./${basename(resolve(name)) || 'model'}`
}

/** Where a run notes the path of its base: beside the folder of its adapters, in what is never published. */
const noteOf = (folder: string) => join(folder, '..', 'private', 'base-model.txt')

/** Notes for this machine alone where the base of a run's adapters is, unless it is on the hub. */
export async function noteBase(folder: string, name: string): Promise<void> {
  if (!isHubName(name)) await replaceFile(noteOf(folder), resolve(name))
}

/**
 * The folder of the model that adapters belong to: `base` where it is given; a name on the hub; else the first that has the adapters'
 * fingerprint, of the path that their run noted, the name in adapter_config.json (`named`) from here, and beside the adapters.
 * Adapters without a fingerprint (not of dp-moe) are looked for by their name alone.
 *
 * @throws DpMoeError FILE_NOT_FOUND, NETWORK where it cannot be had; MODEL_FORMAT where it is another one
 */
export async function findBase(
  folder: string,
  named: string,
  { base, ...hub }: HubOptions & { readonly base?: string } = {},
): Promise<string> {
  if (base !== undefined && !isHubName(base) && !(await exists(join(base, configFile)))) {
    throw new DpMoeError(
      'FILE_NOT_FOUND',
      `There is no model in ${base}: --base takes a folder, or owner/name on the hub`,
    )
  }
  const expected = await expectedFingerprint(folder)
  const found: string[] = []
  const places = await placesOf(folder, named, { base, expected })
  for (const place of places) {
    if (!isHubName(place) && !(await exists(join(place, configFile)))) continue
    const baseFolder = await modelFolder(place, hub)
    if (expected === undefined || expected === (await modelFingerprint(baseFolder))) return baseFolder
    found.push(baseFolder)
  }
  if (found.length > 0) {
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${found.join(', ')} is not the model that the adapters in ${folder} were trained on: its weights or its config.json differ. ` +
        'Say where that is: dp-moe merge --base',
    )
  }
  throw new DpMoeError(
    'FILE_NOT_FOUND',
    `${folder} holds adapters of ${named}, and no model is there${places.size > 1 ? ', nor beside them' : ''}. ` +
      'Put it there, or say where it is and write both together: dp-moe merge --base',
  )
}

async function placesOf(
  folder: string,
  named: string,
  { base, expected }: { base: string | undefined; expected: string | undefined },
): Promise<ReadonlySet<string>> {
  if (base !== undefined) return new Set([base])
  if (isHubName(named) || expected === undefined) return new Set([named])
  const note = noteOf(folder)
  const noted = (await exists(note)) ? [await withFileErrors('read', note, () => readFile(note, 'utf8'))] : []
  return new Set([...noted, resolve(named), resolve(dirname(folder), named)])
}

async function expectedFingerprint(folder: string): Promise<string | undefined> {
  await using file = await SafetensorsFile.open(join(folder, adapterWeightsFile))
  return file.metadata[baseFingerprintKey]
}
