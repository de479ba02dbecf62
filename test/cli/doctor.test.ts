import { cpSync, mkdirSync, mkdtempSync, rmSync, symlinkSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { version } from '../../lib/version.js'
import { TestCli } from './support/cli.js'

const ROOT = fileURLToPath(new URL('../../', import.meta.url))
const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-doctor-'))
t.teardown(() => {
  cli.remove()
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
