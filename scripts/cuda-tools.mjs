// Where the CUDA compiler and its tools are: CUDA_HOME, PATH, the usual folder, or build-tools, a Python environment.
import { spawnSync } from 'node:child_process'
import { existsSync, readdirSync } from 'node:fs'
import { delimiter, join } from 'node:path'
import { fileURLToPath } from 'node:url'

export const root = fileURLToPath(new URL('..', import.meta.url))
const environment = join(root, 'build-tools')

/** What the fatbin has machine code for; newer devices compile the PTX of the oldest. */
export const architectures = ['80', '90', '100', '120']
/** Not in build, which a build from scratch empties: compiling the kernels takes minutes. */
export const cudaFolder = join(root, 'build-cuda')
export const fatbin = join(cudaFolder, 'dp-moe.fatbin')

function folders() {
  const python = join(environment, 'lib')
  const packages = existsSync(python)
    ? readdirSync(python).map((version) => join(python, version, 'site-packages', 'nvidia', 'cu13', 'bin'))
    : []
  return [
    ...(process.env.CUDA_HOME ? [join(process.env.CUDA_HOME, 'bin')] : []),
    ...(process.env.PATH ?? '').split(delimiter),
    '/usr/local/cuda/bin',
    ...packages,
  ]
}

/** The tool's path, or undefined. */
export function findTool(name) {
  return folders()
    .map((folder) => join(folder, name))
    .find((path) => existsSync(path))
}

/** The tool's path; ends the process with what to do when there is none. */
export function needTool(name) {
  const found = findTool(name)
  if (found) return found
  console.error(
    `dp-moe: ${name} was not found. Install the CUDA toolkit 13.0 and put it on PATH, or get the compiler alone: ` +
      'node scripts/build-cuda.mjs --install',
  )
  process.exit(1)
}

/** Puts the compiler into build-tools. */
export function installCompiler() {
  const run = (command, ...rest) => spawnSync(command, rest, { stdio: 'inherit', cwd: root }).status === 0
  const pip = join(environment, 'bin', 'pip')
  if (!existsSync(pip) && !run('python3', '-m', 'venv', environment)) process.exit(1)
  if (!run(pip, 'install', '--quiet', '-r', join(root, 'scripts', 'cuda-compiler.txt'))) process.exit(1)
}
