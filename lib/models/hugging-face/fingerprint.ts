import { createHash } from 'node:crypto'
import { createReadStream } from 'node:fs'
import { readdir } from 'node:fs/promises'
import { join } from 'node:path'
import { withFileErrors } from '../../files.js'

/** SHA-256, in hex, of the configuration and the weights of a model folder. */
export async function modelFingerprint(folder: string): Promise<string> {
  const names = await withFileErrors('read', folder, () => readdir(folder))
  const hash = createHash('sha256')
  for (const name of names.filter((name) => name === 'config.json' || name.endsWith('.safetensors')).sort()) {
    hash.update(`${name};`)
    await withFileErrors('read', join(folder, name), async () => {
      for await (const piece of createReadStream(join(folder, name))) hash.update(piece as Buffer)
    })
  }
  return hash.digest('hex')
}
