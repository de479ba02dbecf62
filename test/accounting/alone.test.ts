import { readFileSync } from 'node:fs'
import { builtinModules } from 'node:module'
import { dirname, join, relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { runInNewContext } from 'node:vm'
import { build } from 'esbuild'
import t from 'tap'
import { PldAccountant as Source, dpSgd as sourceDpSgd } from '../../lib/accounting/index.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const ENTRY = join(ROOT, 'lib/accounting/index.ts')

/** Everything that a file of ours imports, by value or by type, and what those import. */
function reachable(entry: string): { files: string[]; packages: string[] } {
  const files = [entry]
  const packages = new Set<string>()
  for (const file of files) {
    const text = readFileSync(file, 'utf8')
    for (const [, name] of text.matchAll(/(?:from|import)\s*\(?\s*'([^']+)'/g)) {
      if (!name!.startsWith('.')) packages.add(name!)
      else {
        const next = join(dirname(file), name!.replace(/\.js$/, '.ts'))
        if (!files.includes(next)) files.push(next)
      }
    }
  }
  return { files: files.map((file) => relative(ROOT, file)), packages: [...packages] }
}

t.test('lib/accounting reaches itself, lib/errors.ts and mathematics only', (t) => {
  const { files, packages } = reachable(ENTRY)
  t.ok(files.length > 30)
  t.same(
    files.filter((file) => !file.startsWith('lib/accounting/')),
    ['lib/errors.ts'],
  )
  t.same(
    packages.filter((name) => !name.startsWith('@stdlib/') && name !== 'fft.js'),
    [],
  )
  t.end()
})

t.test('bundles for a browser, and answers there as here', async (t) => {
  const { outputFiles, metafile } = await build({
    entryPoints: [ENTRY],
    bundle: true,
    platform: 'browser',
    format: 'iife',
    globalName: 'accounting',
    write: false,
    metafile: true,
    logLevel: 'silent',
  })
  const outside = Object.values(metafile.inputs).flatMap(({ imports }) => imports.filter(({ external }) => external))
  t.same(outside, [])
  const inputs = Object.keys(metafile.inputs)
  t.notOk(inputs.some((path) => /\.node$|bindings|lib\/engine/.test(path)))
  t.notOk(inputs.some((path) => builtinModules.some((name) => path === name || path === `node:${name}`)))
  // A context has no require, process or Buffer, as in a browser.
  const sandbox = runInNewContext(
    `${outputFiles[0]!.text};const { PldAccountant, dpSgd } = accounting;` +
      'JSON.stringify(new PldAccountant().compose(dpSgd(1, 0.01, 100)).epsilon(1e-5))',
  )
  t.same(JSON.parse(sandbox), new Source().compose(sourceDpSgd(1, 0.01, 100)).epsilon(1e-5))
})
