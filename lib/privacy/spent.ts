import { type AccountantName, createAccountant, dpSgd, type NeighboringRelation } from '../accounting/index.js'

/** Equal steps of DP-SGD. */
export interface Phase {
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
}

/** Upper bound on epsilon at `delta` after all phases together. */
export function spentEpsilon(
  accountant: AccountantName,
  relation: NeighboringRelation,
  phases: readonly Phase[],
  delta: number,
): number {
  const asked = createAccountant(accountant, relation)
  for (const { noiseMultiplier, sampleRate, steps } of phases) asked.compose(dpSgd(noiseMultiplier, sampleRate, steps))
  return asked.epsilon(delta).epsilon
}
