import { access } from 'node:fs/promises'
import { join } from 'node:path'
import {
  type AccountantName,
  createAccountant,
  type DpEvent,
  ledgerEvent,
  type NeighboringRelation,
} from '../accounting/index.js'
import { DpMoeError } from '../errors.js'
import { readCertificate } from '../privacy/certificate.js'
import { readLedger } from '../privacy/ledger.js'
import type { Account } from './account-result.js'
import { usageError } from './failure.js'

export interface LedgerAccount {
  readonly result: Account & { readonly plannedSteps: number; readonly seeded: boolean }
  /** The event of the run's first `steps` steps. */
  readonly eventAt: (steps: number) => DpEvent
}

/** Adds up the steps that a run folder's ledger holds, those of every segment. */
export async function accountLedger(
  folder: string,
  options: { delta?: number; accountant?: AccountantName; relation?: NeighboringRelation },
): Promise<LedgerAccount> {
  await requirePrivate(folder)
  const { run, segments, steps } = await readLedger(join(folder, 'private', 'ledger.jsonl'))
  const delta = options.delta ?? (await certifiedDelta(folder))
  const relation = options.relation ?? (run.relation as NeighboringRelation)
  const groups = segments.flatMap((segment) => segment.steps)
  const eventAt = (count: number) => {
    let left = count
    const parts = groups.map((group) => {
      const part = { ...group, steps: Math.min(left, group.count) }
      left -= part.steps
      return part
    })
    return ledgerEvent(parts)
  }
  const accountant = createAccountant(options.accountant, relation).compose(eventAt(steps))
  const same = (read: (mechanism: { noiseMultiplier: number; sampleRate: number }) => number) =>
    groups.every((group) => read(group) === read(run)) ? read(run) : null
  const result = {
    ...accountant.epsilon(delta),
    delta,
    noiseMultiplier: same(({ noiseMultiplier }) => noiseMultiplier),
    sampleRate: same(({ sampleRate }) => sampleRate),
    steps,
    accountant: accountant.name,
    relation,
    sampling: 'poisson',
    plannedSteps: run.plannedSteps,
    seeded: run.key === 'seed',
  }
  return { result, eventAt }
}

/** A run without privacy has no ledger: say that, not that a file is missing. */
async function requirePrivate(folder: string): Promise<void> {
  const certificate = await readCertificate(join(folder, 'release', 'certificate.json')).catch(() => undefined)
  if (certificate?.mechanism !== 'none') return
  throw new DpMoeError(
    'INVALID_ARGUMENT',
    `The run in ${folder} is not private: it has no ledger, and no bound on epsilon`,
  )
}

async function certifiedDelta(folder: string): Promise<number> {
  const path = join(folder, 'release', 'certificate.json')
  try {
    await access(path)
  } catch {
    throw usageError(`--delta is needed: the run in ${folder} has no certificate yet`)
  }
  const certificate = await readCertificate(path)
  if (certificate.mechanism === 'none') throw usageError(`--delta is needed: ${path} is of a run without privacy`)
  return certificate.delta
}
