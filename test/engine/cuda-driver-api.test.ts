// What cuda/driver declares of the driver is what NVIDIA's header says, where that header is.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../../', import.meta.url))

/** Of the toolkit, or of the compiler that scripts/build-cuda.mjs installs. */
function headers(): string | undefined {
  const python = join(root, 'build-tools/lib')
  const folders = [
    ...(process.env.CUDA_HOME ? [join(process.env.CUDA_HOME, 'include')] : []),
    '/usr/local/cuda/include',
    ...(existsSync(python) ? readdirSync(python) : []).map((version) =>
      join(python, version, 'site-packages/nvidia/cu13/include'),
    ),
  ]
  return folders.find((folder) => existsSync(join(folder, 'cuda.h')))
}

const include = headers()

t.test('functions, versions and numbers', { skip: include ? false : 'no cuda.h here' }, async (t) => {
  const source = join(root, 'test/cuda/driver_api_check.cpp')
  const compiler = process.env.CXX ?? 'c++'
  const { status, stderr } = spawnSync(compiler, ['-std=c++20', '-fsyntax-only', '-isystem', include ?? '', source], {
    encoding: 'utf8',
  })
  t.equal(status, 0, stderr)
})
