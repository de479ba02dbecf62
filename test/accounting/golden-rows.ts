import { readFileSync } from 'node:fs'
import {
  type AccountantName,
  type DpEvent,
  dpSgd,
  fixedSizeSampled,
  gaussian,
  type NeighboringRelation,
  selfComposed,
  truncatedPoissonSampled,
} from '../../lib/accounting/index.js'

/** What a row is about, in this library's terms. */
export type GoldenQuestion =
  | {
      readonly ask: 'epsilon'
      readonly accountant: AccountantName
      readonly relation: NeighboringRelation
      readonly event: DpEvent
    }
  | { readonly ask: 'gaussian-epsilon'; readonly noiseMultiplier: number }
  | { readonly ask: 'gaussian-noise'; readonly epsilon: number }
  | {
      readonly ask: 'noise'
      readonly accountant: AccountantName
      readonly epsilon: number
      readonly sampleRate: number
      readonly steps: number
    }
  /** A matrix mechanism: its events come with the training path that uses it. */
  | { readonly ask: 'later' }

/** A value of another library, from golden.json. */
export interface GoldenRow {
  readonly label: string
  /** The library's accountant, and whether its value is padded. */
  readonly library: string
  readonly delta: number
  readonly value: number
  /** Lattice interval of a PLD row; dp_accounting's default where the file gives none. */
  readonly interval: number
  /** Absolute tolerance of the library's own test. */
  readonly tolerance: number | undefined
  readonly question: GoldenQuestion
}

interface RawRow {
  readonly mechanism: string
  readonly accountant: string
  readonly relation: string | null
  readonly q?: number
  readonly sigma?: number
  readonly steps?: number
  readonly params?: string
  readonly delta: number
  readonly interval?: number
  readonly tolerance?: number
  readonly value: number
}

const DEFAULT_INTERVAL = 1e-4

export function goldenRows(): GoldenRow[] {
  const rows: RawRow[] = JSON.parse(readFileSync(new URL('golden.json', import.meta.url), 'utf8'))
  return rows.map((row) => {
    const numbers = parameters(row)
    const label = Object.entries(numbers).map(([name, value]) => `${name}=${value}`)
    return {
      label: [row.mechanism, ...label, `delta=${row.delta}`, row.relation ?? ''].join(' ').trim(),
      library: row.accountant,
      delta: row.delta,
      value: row.value,
      interval: row.interval ?? DEFAULT_INTERVAL,
      tolerance: row.tolerance,
      question: question(row, numbers),
    }
  })
}

function parameters(row: RawRow): Record<string, number> {
  if (row.params === undefined) return { q: row.q!, sigma: row.sigma!, n: row.steps! }
  return Object.fromEntries(
    row.params
      .split(' ')
      .map((part) => part.split('='))
      .map(([name, value]) => [name!, Number(value)]),
  )
}

function question(row: RawRow, { q, sigma, n, N, B, Bmax, eps, bands }: Record<string, number>): GoldenQuestion {
  const accountant = row.accountant.includes('rdp') ? 'rdp' : 'pld'
  const relation =
    row.relation === 'replace_one'
      ? 'replace-one'
      : row.relation === 'replace_special'
        ? 'zero-out'
        : 'add-or-remove-one'
  switch (row.mechanism) {
    case 'poisson-gaussian':
      return { ask: 'epsilon', accountant, relation, event: dpSgd(sigma!, q!, n!) }
    case 'truncated-poisson':
      return {
        ask: 'epsilon',
        accountant,
        relation,
        event: selfComposed(n!, truncatedPoissonSampled(q!, N!, Bmax!, gaussian(sigma!))),
      }
    case 'fixed-wor':
      // There sigma is in units of the whole change under replacement, here in units of C, which is half of it.
      return {
        ask: 'epsilon',
        accountant,
        relation,
        event: selfComposed(n!, fixedSizeSampled(N!, B!, gaussian(2 * sigma!))),
      }
    case 'bandmf-amplified':
      // Each unit can enter one step in `bands`.
      return { ask: 'epsilon', accountant, relation, event: dpSgd(sigma!, q!, n! / bands!) }
    case 'gauss-exact':
      return row.accountant === 'get_epsilon_gaussian'
        ? { ask: 'gaussian-epsilon', noiseMultiplier: sigma! }
        : { ask: 'gaussian-noise', epsilon: eps! }
    case 'calibrate-sigma':
      return { ask: 'noise', accountant, epsilon: eps!, sampleRate: q!, steps: n! }
    default:
      return { ask: 'later' }
  }
}
