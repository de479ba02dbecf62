import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { access, constants } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import { DpMoeError } from '../../errors.js'
import { fileError } from '../../files.js'
import { defineCommand } from '../command.js'
import { engineState } from '../engine-state.js'
import { integer, toggle } from '../flags.js'
import { duration, printResult } from '../output.js'

const root = fileURLToPath(new URL('../../../', import.meta.url))

export const build = defineCommand({
  name: 'build',
  summary: 'Compile the native addon for this machine',
  description:
    'Needed only where no prebuilt addon fits. Takes cmake (3.22 or newer) and a C++20 compiler (gcc 11, clang 14 or newer):\n' +
    '  Debian, Ubuntu  apt install cmake g++\n' +
    '  Fedora          dnf install cmake gcc-c++\n' +
    '  macOS           xcode-select --install && brew install cmake',
  flags: {
    clean: toggle('Throw away an earlier build first'),
    jobs: integer('<n>', 'Files to compile at once', 'the processors there are'),
  },
  examples: ['npx dp-moe build', 'CXX=clang++ npx dp-moe build --clean'],
  async run({ clean, jobs, json }) {
    const start = performance.now()
    await requireWritable()
    await compile([...(clean ? ['rebuild'] : []), ...(jobs === undefined ? [] : ['--parallel', String(jobs)])])
    const { addon, backends } = engineState()
    const cpu = backends.find(({ name }) => name === 'cpu')
    if (!cpu?.available) throw new DpMoeError('ADDON_MISSING', `The addon was built and does not work: ${cpu?.reason}`)
    const seconds = (performance.now() - start) / 1000
    const { instructionSet } = cpu
    await printResult(
      json,
      { addon, instructionSet, seconds },
      () => `Built ${addon} in ${duration(seconds)}; it uses ${instructionSet} here.`,
    )
  },
})

async function requireWritable(): Promise<void> {
  try {
    await access(root, constants.W_OK)
  } catch (error) {
    throw fileError(error, 'write', root)
  }
}

/** Runs the build script; what it and the compiler say goes to standard error. */
async function compile(args: readonly string[]): Promise<void> {
  const script = fileURLToPath(new URL('../../../scripts/build-native.mjs', import.meta.url))
  const child = spawn(process.execPath, [script, ...args], { stdio: ['ignore', 'pipe', 'pipe'], cwd: root })
  let reason = ''
  child.stdout.on('data', (piece: Buffer) => process.stderr.write(piece))
  child.stderr.on('data', (piece: Buffer) => {
    const line = /^dp-moe: (.*)\n$/.exec(piece.toString())
    if (line) reason = line[1]!
    else process.stderr.write(piece)
  })
  const [code] = (await once(child, 'close')) as [number | null]
  if (code === 0) return
  throw new DpMoeError('ENGINE', reason || 'The native addon does not compile; the compiler says why above. See --help')
}
