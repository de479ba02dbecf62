// npm run test:cuda: the conformance suite of every op and the CUDA tests, on the machine's device where it has one,
// else on the emulated device.
import { spawn, spawnSync } from 'node:child_process'
import { availableParallelism } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { whyNoRealCuda } from './real-cuda.js'

const root = fileURLToPath(new URL('..', import.meta.url))
const build = join(root, 'build-conformance')
const fatbin = join(root, 'build-cuda', 'dp-moe.fatbin')

function run(command: string, args: readonly string[], env: Record<string, string> = {}): void {
  const { status } = spawnSync(command, args, { cwd: root, stdio: 'inherit', env: { ...process.env, ...env } })
  if (status !== 0) process.exit(status ?? 1)
}

/** Runs the suite's parts side by side; the status that counts. */
async function conformance(backend: string, parts: number, env: Record<string, string>): Promise<number> {
  const statuses = Array.from({ length: parts }, (_, part) => {
    const args = ['--backend', backend, '--part', `${part + 1}/${parts}`]
    const child = spawn(join(build, 'dp-moe-conformance'), args, { stdio: 'inherit', env: { ...process.env, ...env } })
    return new Promise<number>((resolve) => child.on('close', (status) => resolve(status ?? 1)))
  })
  return Math.max(...(await Promise.all(statuses)))
}

const reason = whyNoRealCuda()
console.log(
  reason === undefined
    ? 'Testing on the CUDA device of this machine'
    : `Testing on the emulated CUDA device, since there is no other: ${reason}`,
)
const emulation = reason === undefined ? 'OFF' : 'ON'
run('cmake', ['-S', root, '-B', build, '-DDP_MOE_TESTS=ON', `-DDP_MOE_EMULATION=${emulation}`])
run('cmake', ['--build', build, '--parallel', String(availableParallelism())])
if (reason === undefined) run(process.execPath, [join(root, 'scripts', 'build-cuda.mjs'), '--install'])

const status =
  reason === undefined
    ? await conformance('cuda', 1, { DP_MOE_CUDA_FATBIN: fatbin })
    : await conformance('emulated', Math.min(4, availableParallelism()), {})
if (status !== 0) process.exit(status)

const tests = ['test/engine/cuda-driver.test.ts', 'test/nn/cuda-layers.test.ts', 'test/models/cuda-step.test.ts']
run(
  'npx',
  ['tap', 'run', ...tests],
  reason === undefined ? { DP_MOE_TEST_CUDA: 'device', DP_MOE_CUDA_FATBIN: fatbin } : {},
)
