// The native tests of every op (test/conformance), on each instruction set of this machine.
import { execFileSync } from 'node:child_process'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const build = fileURLToPath(new URL('../../build', import.meta.url))

// In the addon's build folder, so that the kernels are compiled once.
cmake('-DDP_MOE_TESTS=ON', build)
cmake('--build', build, '--target', 'dp-moe-conformance', '--parallel', '2')
t.spawn(join(build, 'dp-moe-conformance'), [], {}, 'native ops')

function cmake(...args: string[]): void {
  execFileSync('cmake', args, { stdio: ['ignore', 'ignore', 'inherit'] })
}
