import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { pathToFileURL } from 'node:url'
import { build } from 'esbuild'

type Writer = typeof import('hyparquet-writer')

// In one file: tap's resolver does not know the patterns by which the writer finds the parts of hyparquet.
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-parquet-writer-'))
const outfile = join(folder, 'writer.mjs')
const options = { bundle: true, format: 'esm', platform: 'node', outfile } as const
await build({ ...options, stdin: { contents: "export * from 'hyparquet-writer'", resolveDir: process.cwd() } })

export const { parquetWriteBuffer } = (await import(pathToFileURL(outfile).href)) as Writer
rmSync(folder, { recursive: true })
