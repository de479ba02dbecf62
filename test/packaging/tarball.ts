// The package as a user gets it: packed, installed in an empty folder without install scripts and without a compiler.
// Needs dist and prebuilds (`npm run build && npm run make-prebuild -- --cuda`); not part of `npm test`.
import { execFileSync, spawnSync } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  chmodSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  rmSync,
  symlinkSync,
  truncateSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { dirname, join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'

const root = fileURLToPath(new URL('../..', import.meta.url))
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-tarball-'))
const compilerRan = join(folder, 'compiler-ran')
t.teardown(() => rmSync(folder, { recursive: true, force: true }))

/** A PATH with Node and npm, where every build tool only leaves a trace. */
const bin = join(folder, 'bin')
mkdirSync(bin)
for (const tool of ['node', 'npm', 'npx']) symlinkSync(join(dirname(process.execPath), tool), join(bin, tool))
symlinkSync('/bin/sh', join(bin, 'sh'))
for (const tool of ['cc', 'c++', 'gcc', 'g++', 'clang', 'clang++', 'cmake', 'make', 'ninja', 'python3']) {
  writeFileSync(join(bin, tool), `#!/bin/sh\necho "${tool} $*" >> ${compilerRan}\nexit 1\n`)
  chmodSync(join(bin, tool), 0o755)
}
const env = { ...process.env, PATH: bin, NODE_OPTIONS: '' }

function node(source: string) {
  const { status, signal, stdout, stderr } = spawnSync(process.execPath, ['--input-type=module', '--eval', source], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  return { status, signal, stdout: stdout.trim(), stderr }
}

const runsAnOp = `
  import { Device } from 'dp-moe'
  const device = Device.open('cpu', { threads: 2 })
  const y = device.empty([3])
  device.run('add', { a: device.tensor([1, 2, 3]), y, size: 3, alpha: 2, beta: 0 })
  console.log((await y.data()).join())
`

t.test('installs without scripts and without a compiler', async (t) => {
  const packed = execFileSync('npm', ['pack', '--ignore-scripts', '--pack-destination', folder], {
    cwd: root,
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const tarball = packed.trim().split('\n').at(-1)!
  writeFileSync(join(folder, 'package.json'), '{ "name": "user", "private": true }')
  const installed = spawnSync('npm', ['install', '--ignore-scripts', '--prefer-offline', `./${tarball}`], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  t.equal(installed.status, 0, installed.stderr)
  t.notOk(existsSync(join(folder, 'node_modules/dp-moe/build')))
})

t.test('the CUDA kernels are beside the addon', (t) => {
  const prebuilds = join(folder, 'node_modules/dp-moe/prebuilds', `${process.platform}-${process.arch}`)
  const checksums = JSON.parse(readFileSync(join(prebuilds, 'checksums.json'), 'utf8')) as Record<string, string>
  for (const [name, checksum] of Object.entries(checksums)) {
    t.equal(
      createHash('sha256')
        .update(readFileSync(join(prebuilds, name)))
        .digest('hex'),
      checksum,
      name,
    )
  }
  t.ok('dp-moe.fatbin' in checksums)
  t.end()
})

t.test('loads and runs an op, from ES modules and from CommonJS', async (t) => {
  t.match(node(runsAnOp), { status: 0, stdout: '2,4,6' })
  const required = `
    import { createRequire } from 'node:module'
    console.log(typeof createRequire(process.cwd() + '/x.js')('dp-moe').Device.open)
  `
  t.match(node(required), { status: 0, stdout: 'function' })
  t.match(node(`import * as a from 'dp-moe/accounting'; console.log(Object.keys(a).length > 0)`), { stdout: 'true' })
  t.notOk(existsSync(compilerRan), 'no build tool was called')
})

t.test('trains from the command line', async (t) => {
  const words = ['meeting', 'invoice', 'lottery', 'winner', 'report', 'free', 'budget', 'prize']
  const rows = Array.from({ length: 400 }, (_, i) => {
    const spam = i % 2 === 1
    return `${words[(spam ? 2 : 0) + (i % 4 < 2 ? 0 : 4)]} ${words[spam ? 3 : 1]} number ${i}\t${spam ? 'spam' : 'ham'}`
  })
  writeFileSync(join(folder, 'train.tsv'), `text\tlabel\n${rows.join('\n')}\n`)
  const flags =
    '--train train.tsv --validation 0.2 --text text --label label --target-epsilon 8 --max-grad-norm 1 ' +
    '--expected-batch-size 64 --epochs 2 --output run --json'
  const trained = spawnSync(process.execPath, ['node_modules/dp-moe/dist/cli/main.js', 'train', ...flags.split(' ')], {
    cwd: folder,
    env,
    encoding: 'utf8',
  })
  t.equal(trained.status, 0, trained.stderr)
  t.ok(existsSync(join(folder, 'run/release/certificate.json')))
  t.notOk(existsSync(compilerRan), 'no build tool was called')
})

t.test('a damaged prebuild is one clear error, not a crash', async (t) => {
  const prebuilds = join(folder, 'node_modules/dp-moe/prebuilds', `${process.platform}-${process.arch}`)
  const addon = join(prebuilds, readdirSync(prebuilds).find((name) => name.endsWith('.node'))!)
  truncateSync(addon, 40_000)
  t.match(node(runsAnOp), { status: 1, signal: null, stderr: /damaged; install dp-moe again/ })
  rmSync(prebuilds, { recursive: true })
  const { status, stderr } = node(runsAnOp)
  t.equal(status, 1)
  t.match(stderr, /there is none for .*Build it with: npx dp-moe build/)
})
