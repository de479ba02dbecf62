import { readFileSync } from 'node:fs'
import { availableParallelism, cpus, totalmem } from 'node:os'
import { sep } from 'node:path'
import type { CudaDevices } from '../../engine/index.js'
import { version } from '../../version.js'
import { defineCommand } from '../command.js'
import { type BackendState, engineState } from '../engine-state.js'
import { printResult, table } from '../output.js'

interface Diagnosis {
  readonly version: string
  readonly node: string
  readonly platform: string
  readonly processor: { model: string; available: number; instructionSets: string[] }
  /** Null where the CPU backend is missing. */
  readonly instructionSet: string | null
  readonly threads: number | null
  /** Bytes; limit: that of the container, null without one. */
  readonly memory: { total: number; available: number; limit: number | null }
  readonly addon: { path: string | null; kind: 'local' | 'prebuilt' | null }
  readonly cuda: CudaDevices | null
  readonly backends: readonly BackendState[]
}

export const doctor = defineCommand({
  name: 'doctor',
  summary: 'Show what this machine has and what of dp-moe works on it',
  description:
    'Shows the processor and its instruction sets, threads, memory, the native addon, the CUDA driver and its devices, the backends and why one is missing.',
  flags: {},
  examples: ['dp-moe doctor', 'DP_MOE_ISA=base dp-moe doctor --json'],
  async run({ json }) {
    const diagnosis = diagnose()
    await printResult(json, diagnosis, () => describe(diagnosis))
  },
})

function diagnose(): Diagnosis {
  const { addon, cuda, backends } = engineState()
  const cpu = backends.find(({ name }) => name === 'cpu')
  const limit = process.constrainedMemory()
  return {
    version,
    node: process.version,
    platform: `${process.platform}-${process.arch}`,
    processor: {
      model: cpus()[0]?.model.trim() ?? 'unknown',
      available: availableParallelism(),
      instructionSets: instructionSets(),
    },
    instructionSet: cpu?.available ? cpu.instructionSet : null,
    threads: cpu?.available ? cpu.threads : null,
    memory: {
      total: totalmem(),
      available: process.availableMemory(),
      limit: limit > 0 && limit < totalmem() ? limit : null,
    },
    addon: {
      path: addon,
      kind: addon === null ? null : addon.includes(`${sep}prebuilds${sep}`) ? 'prebuilt' : 'local',
    },
    cuda,
    backends,
  }
}

function describe(diagnosis: Diagnosis): string {
  const { processor, memory, addon, cuda } = diagnosis
  const limit = memory.limit === null ? '' : `, limited to ${gibibytes(memory.limit)}`
  return table([
    ['dp-moe', diagnosis.version],
    ['node', `${diagnosis.node} (${diagnosis.platform})`],
    ['processor', `${processor.model}, ${processor.available} usable`],
    [
      'instructions',
      `${diagnosis.instructionSet ?? 'none'} in use; this processor has ${processor.instructionSets.join(', ')} (DP_MOE_ISA forces one)`,
    ],
    ['threads', `${diagnosis.threads ?? 'none'} (DP_MOE_THREADS sets them)`],
    ['memory', `${gibibytes(memory.total)}, ${gibibytes(memory.available)} available${limit}`],
    [
      'addon',
      addon.path === null ? 'missing' : `${addon.path} (${addon.kind === 'local' ? 'built here' : 'prebuilt'})`,
    ],
    ...(cuda === null ? [] : [['cuda driver', `${cuda.driver} (CUDA ${cuda.version})`]]),
    ...(cuda?.devices ?? []).map((device, index) => [
      `cuda:${index}`,
      `${device.name}, compute capability ${device.computeCapability}, ${gibibytes(device.memory)}`,
    ]),
    ...diagnosis.backends.map((backend) => [
      `backend ${backend.name}`,
      backend.available ? 'ready' : `missing: ${backend.reason}`,
    ]),
  ])
}

/** The kernels that this processor can run, by the engine's names. */
function instructionSets(): string[] {
  const flags = processorFlags()
  const has = (...names: string[]) => names.every((name) => flags.has(name))
  const sets = ['base']
  if (has('avx2', 'fma', 'f16c')) sets.push('avx2')
  if (has('avx2', 'fma', 'f16c', 'avx512f', 'avx512bw', 'avx512dq', 'avx512vl')) sets.push('avx512')
  return sets
}

function processorFlags(): Set<string> {
  try {
    const line = /^flags\s*:(.*)$/m.exec(readFileSync('/proc/cpuinfo', 'utf8'))
    return new Set(line?.[1]?.trim().split(/\s+/))
  } catch {
    return new Set()
  }
}

function gibibytes(bytes: number): string {
  return `${(bytes / 2 ** 30).toFixed(1)} GiB`
}
