import { readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { buildSync } from 'esbuild'

export const ROOT = fileURLToPath(new URL('../../', import.meta.url))

/** Writes the sources of some folders of the repository to `output` as JavaScript, file by file and without a look at types. */
export function compile(folders: readonly string[], output: string, base = '.'): void {
  const sources = folders.flatMap((folder) =>
    readdirSync(join(ROOT, folder), { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.ts'))
      .map((name) => join(ROOT, folder, name)),
  )
  buildSync({
    entryPoints: sources,
    outdir: output,
    outbase: join(ROOT, base),
    format: 'esm',
    platform: 'node',
    target: 'node20',
  })
}
