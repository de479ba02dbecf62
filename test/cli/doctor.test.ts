import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { version } from '../../lib/version.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'
import { TestCli } from './support/cli.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const cli = new TestCli()
const emulated = new EmulatedCuda()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-doctor-'))
t.teardown(() => {
  cli.remove()
  emulated.remove()
  rmSync(folder, { recursive: true })
})

/** The package without its addon, or with something in its place. */
function packageWith(addon: string | undefined): string {
  const root = mkdtempSync(join(folder, 'package-'))
  cpSync(dirname(dirname(cli.main)), join(root, 'dist'), { recursive: true })
  cpSync(join(ROOT, 'package.json'), join(root, 'package.json'))
  symlinkSync(join(ROOT, 'node_modules'), join(root, 'node_modules'))
  if (addon !== undefined) {
    mkdirSync(join(root, 'build/Release'), { recursive: true })
    writeFileSync(join(root, 'build/Release/dp-moe.node'), addon)
  }
  return join(root, 'dist/cli/main.js')
}

t.test('with the addon: what is in use', async (t) => {
  const { code, stdout, stderr } = await cli.run(['doctor', '--json'], {
    env: { DP_MOE_ISA: 'base', DP_MOE_THREADS: '1' },
  })
  t.equal(code, 0)
  t.equal(stderr, '')
  t.match(JSON.parse(stdout), {
    version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    processor: { model: String, available: Number, instructionSets: ['base'] },
    instructionSet: 'base',
    threads: 1,
    memory: { total: Number, available: Number },
    addon: { path: /\.node$/, kind: /^(local|prebuilt)$/ },
    backends: [
      { name: 'cpu', available: true },
      { name: 'cuda', available: Boolean },
    ],
  })
  const { stdout: text } = await cli.run(['doctor'])
  for (const line of ['dp-moe', 'node', 'processor', 'instructions', 'threads', 'memory', 'addon', 'backend cpu']) {
    t.match(text, new RegExp(`^${line}  +\\S`, 'm'))
  }
})

t.test('a backend that is missing comes with the reason', async (t) => {
  const { stdout } = await cli.run(['doctor', '--json'], { env: { CUDA_VISIBLE_DEVICES: '' } })
  const cuda = JSON.parse(stdout).backends[1]
  if (!cuda.available) t.match(cuda.reason, /\w+ \w+/)
})

t.test('CUDA devices: what the driver sees, and which of them can be used', async (t) => {
  t.teardown(() => emulated.restore())
  emulated.use('devices=2')
  const { stdout } = await cli.run(['doctor', '--json'])
  const driver = process.env.DP_MOE_CUDA_DRIVER
  const device = { name: 'Emulated device', computeCapability: '9.0', memory: 2 ** 32 }
  t.match(JSON.parse(stdout), {
    cuda: { driver, version: '13.0', devices: [device, device] },
    backends: [
      { name: 'cpu', available: true },
      { name: 'cuda:0', available: true, instructionSet: 'sm_90' },
      { name: 'cuda:1', available: true },
    ],
  })
  const { stdout: text } = await cli.run(['doctor'])
  t.match(text, new RegExp(`^cuda driver +${driver} \\(CUDA 13\\.0\\)$`, 'm'))
  t.match(text, /^cuda:1 +Emulated device, compute capability 9\.0, 4\.0 GiB$/m)
  t.match(text, /^backend cuda:1 +ready$/m)

  emulated.use('no-image')
  t.match((await cli.run(['doctor'])).stdout, /^backend cuda:0 +missing: .*no kernels for it/m)
  emulated.use('devices=0')
  t.match((await cli.run(['doctor'])).stdout, /^backend cuda +missing: .*CUDA_ERROR_NO_DEVICE/m)
  emulated.useSource(`
    #include <cstdlib>
    extern "C" int cuInit(unsigned) { return 0; }
    extern "C" int cuDriverGetVersion(int*) { std::abort(); }`)
  const { code, stdout: killed } = await cli.run(['doctor'])
  t.equal(code, 0)
  t.match(killed, /^backend cpu +ready$/m)
  t.match(killed, /^backend cuda +missing: starting the CUDA driver ended the process \(SIGABRT\)/m)
})

t.test('without an addon, or with a damaged one: explained, exit code 0', async (t) => {
  for (const [addon, reason] of [
    [undefined, /npx dp-moe build/],
    ['not an addon', /does not load here.*npx dp-moe build/],
  ] as const) {
    const broken = packageWith(addon)
    const { code, stdout, stderr } = await cli.run(['doctor', '--json'], { main: broken })
    t.equal(code, 0)
    t.equal(stderr, '')
    t.match(JSON.parse(stdout), {
      instructionSet: null,
      backends: [{ available: false, reason }, { available: false }],
    })
    const { stdout: text } = await cli.run(['doctor'], { main: broken })
    t.match(text, /^backend cpu +missing: /m)
  }
})

t.test('an addon that kills the process that loads it is an answer too', async (t) => {
  const main = packageWith(undefined)
  writeFileSync(join(dirname(main), 'probe.js'), 'process.kill(process.pid, "SIGBUS")')
  const { code, stdout } = await cli.run(['doctor', '--json'], { main })
  t.equal(code, 0)
  t.match(JSON.parse(stdout).backends[0], { available: false, reason: /SIGBUS.*damaged/ })
})
