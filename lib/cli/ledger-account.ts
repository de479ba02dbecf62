import {
  type AccountantName,
  createAccountant,
  type DpEvent,
  ledgerEvent,
  type NeighboringRelation,
} from '../accounting/index.js'
import { readRunLedger } from '../train/run-ledger.js'
import type { Account } from './account-result.js'
import { usageError } from './failure.js'

export interface LedgerAccount {
  readonly result: Account & {
    readonly plannedSteps: number
    /** Not private: whoever knows the seed can take the noise away. */
    readonly seeded: boolean
    /** What says that the ledger's end is not missing; null: nothing does. */
    readonly comparedWith: 'certificate' | 'checkpoint' | null
  }
  /** The event of the run's first `steps` steps. */
  readonly eventAt: (steps: number) => DpEvent
}

/**
 * Adds up the steps that a run folder's ledger holds, those of every segment.
 *
 * @throws DpMoeError LEDGER_DAMAGED also where the folder's certificate or a checkpoint knows of more steps
 */
export async function accountLedger(
  folder: string,
  options: { delta?: number; accountant?: AccountantName },
): Promise<LedgerAccount> {
  const { summary, certificate, comparedWith } = await readRunLedger(folder)
  const { run, segments, steps } = summary
  const delta = options.delta ?? certificate?.delta
  if (delta === undefined) throw usageError(`--delta is needed: the run in ${folder} has no certificate yet`)
  const relation = run.relation as NeighboringRelation
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
    comparedWith: comparedWith ?? null,
  }
  return { result, eventAt }
}
