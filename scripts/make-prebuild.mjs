// Makes prebuilds/<platform>-<arch>/ for this machine: the stripped addon, and the checksum that the loader holds it to.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const root = fileURLToPath(new URL('..', import.meta.url))
const prebuildify = createRequire(import.meta.url).resolve('prebuildify/bin.js')

rmSync(join(root, 'prebuilds'), { recursive: true, force: true })
const { status } = spawnSync(
  process.execPath,
  [
    prebuildify,
    '--napi',
    '--strip',
    '--tag-libc',
    '--target',
    process.versions.node,
    '--node-gyp',
    './scripts/prebuild-shim.cjs',
  ],
  { cwd: root, stdio: 'inherit' },
)
if (status !== 0) process.exit(status ?? 1)

const folder = join(root, 'prebuilds', `${process.platform}-${process.arch}`)
const addons = readdirSync(folder).filter((name) => name.endsWith('.node'))
const checksums = Object.fromEntries(
  addons.map((name) => [
    name,
    createHash('sha256')
      .update(readFileSync(join(folder, name)))
      .digest('hex'),
  ]),
)
writeFileSync(join(folder, 'checksums.json'), `${JSON.stringify(checksums, null, 2)}\n`)
// prebuildify moves the addon; the local build goes on working with a copy.
mkdirSync(join(root, 'build', 'Release'), { recursive: true })
for (const name of addons) copyFileSync(join(folder, name), join(root, 'build', 'Release', 'dp-moe.node'))
