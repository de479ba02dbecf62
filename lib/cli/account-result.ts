import type { AccountantName, NeighboringRelation } from '../accounting/index.js'

/** What is printed with --json; null where steps differ from each other. */
export interface Account {
  readonly epsilon: number
  readonly lowerBound: number
  readonly upperBound: number
  readonly delta: number
  readonly noiseMultiplier: number | null
  readonly sampleRate: number | null
  readonly steps: number
  readonly accountant: AccountantName
  readonly relation: NeighboringRelation
  readonly sampling: string
}
