import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { CudaDevices, DeviceInfo, DeviceName } from '../engine/index.js'

export type BackendState =
  | ({ readonly available: true } & DeviceInfo)
  | { readonly available: false; readonly name: DeviceName; readonly reason: string }

/** What of the engine works here. */
export interface EngineState {
  /** The addon that is used, null where there is none. */
  readonly addon: string | null
  /** The CUDA driver and its devices, null where there is no usable driver. */
  readonly cuda: CudaDevices | null
  /** The CPU, then each CUDA device, or `cuda` where there is none. */
  readonly backends: readonly BackendState[]
}

interface Fact {
  readonly addon?: string
  readonly backend?: BackendState
  readonly cuda?: CudaDevices
  readonly missing?: string
}

/** Finds out by trying, in another process: an addon that cannot be loaded, or that kills who loads it, is an answer too. */
export function engineState(): EngineState {
  const probe = fileURLToPath(new URL('./probe.js', import.meta.url))
  const { stdout, signal, status } = spawnSync(process.execPath, [probe], {
    encoding: 'utf8',
    stdio: ['ignore', 'pipe', 'ignore'],
  })
  const facts = stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Fact)
  const addon = facts.find((fact) => fact.addon !== undefined)?.addon ?? null
  const missing = facts.find((fact) => fact.missing !== undefined)?.missing
  const ended = signal === null ? `exit code ${status}` : signal
  const cuda = facts.find((fact) => fact.cuda !== undefined)?.cuda ?? null
  const backends = facts.flatMap(({ backend }) => backend ?? [])
  const absent = (name: DeviceName, reason: string) =>
    backends.push({ name, available: false, reason: missing ?? reason })
  if (backends.length === 0) {
    absent(
      'cpu',
      `loading ${addon} ended the process (${ended}): the file is damaged, or not for this system. Install again`,
    )
  }
  if (backends.length === 1)
    absent('cuda', `starting the CUDA driver ended the process (${ended}). Does nvidia-smi work?`)
  return { addon, cuda, backends }
}
