// Makes prebuilds/<platform>-<arch>/ for this machine: the stripped addon, the CUDA kernels (where nvcc is found, or with
// --cuda, which fails without it), and their checksums, to which the loader holds the addon.
import { spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import { copyFileSync, mkdirSync, readdirSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { createRequire } from 'node:module'
import { join } from 'node:path'
import { findTool, root } from './cuda-tools.mjs'

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
const kernels = 'dp-moe.fatbin'
const withKernels = process.argv.includes('--cuda') || findTool('nvcc') !== undefined
if (withKernels) {
  const output = ['--output', join(folder, kernels)]
  const built = spawnSync(process.execPath, [join(root, 'scripts', 'build-cuda.mjs'), ...output], { stdio: 'inherit' })
  if (built.status !== 0) process.exit(built.status ?? 1)
} else {
  console.warn('dp-moe: found no nvcc, so this prebuild has no CUDA kernels')
}
const checksums = Object.fromEntries(
  [...addons, ...(withKernels ? [kernels] : [])].map((name) => [
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
