// Checks of the compiled kernels (build/Release/dp-moe.fatbin) that need no GPU:
// - no kernel of a hot family has a stack frame (which is where spilled registers go), but for those listed below;
// - the matrix and attention kernels use the tensor cores and copy in the background;
// - registers, shared memory and occupancy are those of docs/cuda-kernels.md (--update rewrites it);
// - the fatbin is small enough for the package.
import { spawnSync } from 'node:child_process'
import { existsSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { parseArgs } from 'node:util'
import { architectures, fatbin, needTool, root } from './cuda-tools.mjs'

const { values: options } = parseArgs({ options: { update: { type: 'boolean' } } })
const table = join(root, 'docs', 'cuda-kernels.md')
const maxBytes = 12 * 2 ** 20
const hot =
  /^(matrix_multiply|weight_gradient_(wide|narrow|unpacked)|attention|layerNorm|rmsNorm|normBackward|gramOf|tileNorms)/
const onTensorCores =
  /^(matrix_multiply_(large|wide|narrow)(_transposed)?_bfloat16|weight_gradient_(wide|narrow)_bfloat16|attention(Queries|Keys)?\d+_bfloat16)$/
/** Bytes of stack frame that are known and small: the compiler for this architecture lacks a few registers. */
const knownFrames = { '120 attention128_bfloat16': 16, '120 tileNorms_float32': 32 }
/** Registers and warps of a multiprocessor, and shared memory in KiB, of each architecture. */
const multiprocessors = {
  80: { warps: 64, shared: 164 },
  90: { warps: 64, shared: 228 },
  100: { warps: 64, shared: 228 },
  120: { warps: 48, shared: 100 },
}
const registers = 65536
const sharedOfABlock = 1024 // bytes that the system takes for each

function dump(...rest) {
  const { status, stdout, stderr } = spawnSync(needTool('cuobjdump'), [...rest, fatbin], {
    encoding: 'utf8',
    maxBuffer: 1 << 30,
  })
  if (status === 0) return stdout
  console.error(stderr)
  process.exit(1)
}

/** [{ architecture, kernel, registers, stack, local, shared }], by cuobjdump. */
function resources() {
  const found = []
  let architecture = ''
  let kernel = ''
  for (const line of dump('-res-usage').split('\n')) {
    architecture = /^arch = sm_(\d+)/.exec(line)?.[1] ?? architecture
    kernel = /^ Function (\S+):/.exec(line)?.[1] ?? kernel
    const usage = /REG:(\d+) STACK:(\d+) SHARED:(\d+) LOCAL:(\d+)/.exec(line)?.slice(1).map(Number)
    if (usage) {
      const [registers, stack, shared, local] = usage
      // From compute capability 9.0 on, the number includes what the system takes.
      const own = Number(architecture) >= 90 ? shared - sharedOfABlock : shared
      found.push({ architecture, kernel, registers, stack, local, shared: own })
    }
  }
  return found
}

/** The most threads of a block that each kernel declares. */
function threadBounds() {
  const bounds = new Map()
  let kernel = ''
  for (const line of dump('-ptx').split('\n')) {
    kernel = /\.entry (\w+)/.exec(line)?.[1] ?? kernel
    const threads = /^\.maxntid (\d+)/.exec(line)?.[1]
    if (threads) bounds.set(kernel, Number(threads))
  }
  return bounds
}

/** What the machine code of each kernel has: { 'sm_80 name': { tensor, background } }. */
function instructions() {
  const found = new Map()
  let architecture = ''
  let entry
  for (const line of dump('-sass').split('\n')) {
    architecture = /^arch = sm_(\d+)/.exec(line)?.[1] ?? architecture
    const kernel = /Function : (\S+)/.exec(line)?.[1]
    if (kernel) {
      entry = { tensor: false, background: false }
      found.set(`${architecture} ${kernel}`, entry)
    }
    if (line.includes('HMMA')) entry.tensor = true
    if (line.includes('LDGSTS')) entry.background = true
  }
  return found
}

/** Share of a multiprocessor's warps that registers and static shared memory let be resident. */
function occupancy({ architecture, registers: each, shared }, threads) {
  const machine = multiprocessors[architecture]
  const warps = Math.ceil(threads / 32)
  const ofRegisters = Math.floor(registers / (Math.ceil((each * 32) / 256) * 256 * warps))
  const ofShared = Math.floor((machine.shared * 1024) / (shared + sharedOfABlock))
  const blocks = Math.min(ofRegisters, ofShared, Math.floor(machine.warps / warps))
  return Math.round((100 * blocks * warps) / machine.warps)
}

const defaultThreads = 256 // of kernels that declare no bound, for the table

function tableOf(usages, bounds) {
  const lines = [
    '# What the CUDA kernels take',
    '',
    'Written by `node scripts/check-cuda.mjs --update`, compared in CI. Per architecture: registers of a thread / bytes of static shared',
    'memory of a block / occupancy in per cent, as registers and static shared memory allow it (what a launch adds as dynamic shared',
    `memory is in the cost model of [cuda.md](cuda.md)). Threads: the most that the kernel declares, or ${defaultThreads}.`,
    '',
    `| kernel | threads | ${architectures.map((name) => `sm_${name}`).join(' | ')} |`,
    `|---|--:|${architectures.map(() => '--:|').join('')}`,
  ]
  const kernels = [...new Set(usages.map((usage) => usage.kernel))].sort()
  for (const kernel of kernels) {
    const threads = bounds.get(kernel) ?? defaultThreads
    const cells = architectures.map((architecture) => {
      const usage = usages.find((one) => one.kernel === kernel && one.architecture === architecture)
      if (!usage) return 'none'
      const stack = usage.stack + usage.local > 0 ? ` / stack ${usage.stack + usage.local}` : ''
      return `${usage.registers} / ${usage.shared} / ${occupancy(usage, threads)}${stack}`
    })
    lines.push(`| \`${kernel}\` | ${threads} | ${cells.join(' | ')} |`)
  }
  return `${lines.join('\n')}\n`
}

const problems = []
const usages = resources()
const code = instructions()
for (const { architecture, kernel, stack, local } of usages) {
  if (hot.test(kernel) && stack + local > (knownFrames[`${architecture} ${kernel}`] ?? 0)) {
    problems.push(`${kernel} on sm_${architecture} has a stack frame of ${stack + local} bytes`)
  }
  const has = code.get(`${architecture} ${kernel}`)
  if (onTensorCores.test(kernel) && !has?.tensor) {
    problems.push(`${kernel} on sm_${architecture} does not use the tensor cores (no HMMA)`)
  }
  if (onTensorCores.test(kernel) && !has?.background) {
    problems.push(`${kernel} on sm_${architecture} does not copy in the background (no LDGSTS)`)
  }
}
for (const architecture of architectures) {
  const count = usages.filter((usage) => usage.architecture === architecture).length
  if (count === 0) problems.push(`nothing for sm_${architecture}`)
}
if (!usages.some((usage) => onTensorCores.test(usage.kernel))) problems.push('no kernel for the tensor cores')

const bytes = readFileSync(fatbin).length
if (bytes > maxBytes) problems.push(`dp-moe.fatbin has ${bytes} bytes, more than ${maxBytes}`)

const now = tableOf(usages, threadBounds())
if (options.update) writeFileSync(table, now)
const before = existsSync(table) ? readFileSync(table, 'utf8') : ''
const compiler = spawnSync(needTool('nvcc'), ['--version'], { encoding: 'utf8' }).stdout
if (now !== before && !compiler.includes('release 13.0')) {
  console.log('docs/cuda-kernels.md is not compared: it is of nvcc 13.0')
} else if (now !== before) {
  const known = new Set(before.split('\n'))
  const changed = now.split('\n').filter((line) => !known.has(line))
  problems.push(
    `docs/cuda-kernels.md is of other kernels; look at what changed, then node scripts/check-cuda.mjs --update\n${changed.join('\n')}`,
  )
}

for (const problem of problems) console.error(`not ok: ${problem}`)
console.log(
  `${usages.length} kernels for ${architectures.length} architectures, ${(bytes / 2 ** 20).toFixed(1)} MiB, ${problems.length} problems`,
)
process.exit(problems.length === 0 ? 0 : 1)
