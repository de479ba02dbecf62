import { spawnSync } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import type { DeviceInfo, DeviceName } from '../engine/index.js'

export type BackendState =
  | ({ readonly available: true } & DeviceInfo)
  | { readonly available: false; readonly name: DeviceName; readonly reason: string }

/** What of the engine works here. */
export interface EngineState {
  /** The addon that is used, null where there is none. */
  readonly addon: string | null
  readonly backends: readonly BackendState[]
}

interface Fact {
  readonly addon?: string
  readonly backend?: BackendState
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
  const reason =
    missing ??
    `loading ${addon} ended the process (${ended}): the file is damaged, or not for this system. Install again`
  const backends = (['cpu', 'cuda'] as const).map(
    (name) => facts.find((fact) => fact.backend?.name === name)?.backend ?? { name, available: false as const, reason },
  )
  return { addon, backends }
}
