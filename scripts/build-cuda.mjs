// Compiles cuda/kernels to dp-moe.fatbin, when something has changed; `cmake -DDP_MOE_CUDA=ON` runs it.
//   --install        first gets the compiler with pip into build-tools, where there is none
//   --output FILE    where to put it; build/Release/dp-moe.fatbin, beside the addon
import { spawnSync } from 'node:child_process'
import { copyFileSync, existsSync, mkdirSync, readdirSync, readFileSync, statSync, writeFileSync } from 'node:fs'
import { availableParallelism } from 'node:os'
import { dirname, join, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { architectures, cudaFolder, fatbin, findTool, installCompiler, needTool, root } from './cuda-tools.mjs'

const { values: options } = parseArgs({
  options: {
    install: { type: 'boolean' },
    output: { type: 'string', default: join(root, 'build', 'Release', 'dp-moe.fatbin') },
  },
})
const kernels = join(root, 'cuda', 'kernels')

/** Everything that a kernel may include. */
function inputs() {
  return [kernels, join(root, 'native', 'include'), join(root, 'native', 'random'), join(root, 'scripts')].flatMap(
    (folder) =>
      readdirSync(folder)
        .filter((name) => /\.(cu|h)$/.test(name) || name.includes('cuda'))
        .map((name) => join(folder, name)),
  )
}

function isUpToDate() {
  if (!existsSync(fatbin)) return false
  const built = statSync(fatbin).mtimeMs
  return inputs().every((path) => statSync(path).mtimeMs < built)
}

/** One source of all kernels: one module for the driver, and no two helpers of one name. */
function writeSource() {
  const files = readdirSync(kernels).filter((name) => name.endsWith('.cu'))
  const source = join(cudaFolder, 'kernels.cu')
  writeFileSync(source, files.map((name) => `#include "${name}"\n`).join(''))
  return source
}

function compile() {
  mkdirSync(cudaFolder, { recursive: true })
  const include = ['native/include', 'native', 'cuda', 'cuda/kernels'].map((folder) => `-I${join(root, folder)}`)
  // One PTX of the oldest for all: what the kernels use is there since then, and compiling takes a third of the time.
  const [oldest] = architectures
  const code = [...architectures.map((name) => `sm_${name}`), `compute_${oldest}`].join(',')
  const { status, stdout, stderr } = spawnSync(
    needTool('nvcc'),
    [
      '-std=c++20',
      '-O3',
      '-fmad=false', // the same bits as on the CPU; where a product and a sum may fuse, kernels say fmaf
      '--expt-relaxed-constexpr',
      '-Werror=all-warnings',
      `--threads=${Math.min(architectures.length + 1, availableParallelism())}`,
      ...include,
      `-gencode=arch=compute_${oldest},code=[${code}]`,
      '--compress-mode=size',
      '-fatbin',
      '-o',
      fatbin,
      writeSource(),
    ],
    { encoding: 'utf8', maxBuffer: 1 << 28 },
  )
  if (status !== 0) {
    console.error(`${stdout}${stderr}`)
    process.exit(1)
  }
}

if (options.install && !findTool('nvcc')) installCompiler()
if (isUpToDate()) {
  console.log('dp-moe.fatbin is up to date')
} else {
  compile()
  console.log(
    `dp-moe.fatbin: ${(readFileSync(fatbin).length / 2 ** 20).toFixed(1)} MiB for sm_${architectures.join(', sm_')} and PTX`,
  )
}
mkdirSync(dirname(resolve(options.output)), { recursive: true })
copyFileSync(fatbin, options.output)
