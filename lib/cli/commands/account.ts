import { DpMoeError } from '../../errors.js'
import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { choice, flagName, group, integer, number, text, type Values } from '../flags.js'
import { printResult, shortNumber, table } from '../output.js'

const SOLVABLE = ['sampleRate', 'noiseMultiplier', 'steps', 'delta', 'epsilon'] as const

const accountFlags = {
  ...group('Exactly one of these is left out and solved for', {
    sampleRate: number('<q>', 'Chance of an example to be in a batch'),
    noiseMultiplier: number('<sigma>', 'Noise in units of the clipping norm'),
    steps: integer('<n>', 'Number of steps'),
    delta: number('<delta>', 'Chance that the guarantee may fail'),
    epsilon: number('<eps>', 'Budget: never exceeded by what is solved for'),
  }),
  ...group('Or a run', {
    ledger: text('<dir>', "What a run folder's ledger has spent; --delta defaults to that of its certificate"),
  }),
  ...group('Mechanism', {
    accountant: choice('<name>', ['pld', 'rdp'], 'Accountant', 'pld'),
    relation: choice(
      '<relation>',
      ['zero-out', 'add-or-remove-one', 'replace-one'],
      'What neighbouring data sets are',
      'zero-out',
    ),
    sampling: choice('<kind>', ['poisson', 'none'], 'How batches are drawn', 'poisson'),
  }),
}

type AccountValues = Values<typeof accountFlags>

/** What is printed with --json; null where steps differ from each other. */
export interface Account {
  readonly epsilon: number
  readonly lowerBound: number
  readonly upperBound: number
  readonly delta: number
  readonly noiseMultiplier: number | null
  readonly sampleRate: number | null
  readonly steps: number
  readonly accountant: string
  readonly relation: string
  readonly sampling: string
}

export const account = defineCommand({
  name: 'account',
  summary: 'Work out what training costs in privacy, or what a budget allows',
  description:
    'Epsilon is a certified upper bound; null in JSON where it is infinite. The noise has standard deviation sigma * C ' +
    'whatever the relation.',
  flags: accountFlags,
  examples: [
    'dp-moe account --sample-rate 0.01 --noise-multiplier 1 --steps 1000 --delta 1e-5',
    'dp-moe account --sample-rate 0.01 --steps 1000 --delta 1e-5 --epsilon 3 --json',
    'dp-moe account --ledger runs/mails',
  ],
  async run({ json, debug: _, ...values }) {
    const { result, solved } = values.ledger === undefined ? await solveFor(values) : await accountRun(values)
    await printResult(json, result, () => describe(result, solved))
  },
})

interface Answer {
  readonly result: Account
  readonly solved: string
}

async function solveFor({ ledger: _, sampling = 'poisson', ...given }: AccountValues): Promise<Answer> {
  if (sampling === 'none' && given.sampleRate !== undefined) {
    throw usageError('--sample-rate cannot be given with --sampling none: every example is in every batch')
  }
  const values = sampling === 'none' ? { ...given, sampleRate: 1 } : given
  const missing = SOLVABLE.filter((name) => values[name] === undefined)
  if (missing.length !== 1) {
    const left = missing.length === 0 ? 'none is left out' : `left out are ${missing.map(flagName).join(', ')}`
    const rule = `leave out exactly one of ${SOLVABLE.map(flagName).join(', ')}, which is solved for`
    throw new DpMoeError('INVALID_ARGUMENT', `${rule}; ${left}. See dp-moe account --help`)
  }
  const { solve } = await import('../../accounting/index.js')
  const { epsilon, lowerBound, upperBound, delta, noiseMultiplier, sampleRate, steps, accountant, relation } =
    solve(values)
  const bounds = { epsilon, lowerBound, upperBound }
  const result = { ...bounds, delta, noiseMultiplier, sampleRate, steps, accountant, relation, sampling }
  return { result, solved: missing[0]! }
}

async function accountRun({ ledger, ...values }: AccountValues): Promise<Answer> {
  const extra = (['sampleRate', 'noiseMultiplier', 'steps', 'epsilon', 'sampling'] as const).find(
    (name) => values[name] !== undefined,
  )
  if (extra) throw usageError(`${flagName(extra)} cannot be given with --ledger: the ledger says it`)
  const { accountLedger } = await import('../ledger-account.js')
  return { result: await accountLedger(ledger!, values), solved: 'epsilon' }
}

function describe(result: Account, solved: string): string {
  const { epsilon, lowerBound, accountant } = result
  const bound = `certified upper bound${accountant === 'pld' ? `; at least ${shortNumber(lowerBound, 'down')}` : ''}`
  const row = (name: string, title: string, value: number | null, safe: 'up' | 'down', remark?: string) => {
    const shown = value === null ? 'varies' : name === solved || remark ? shortNumber(value, safe) : asGiven(value)
    return [title, shown, [name === solved ? 'solved for' : '', remark ?? ''].filter((part) => part).join('; ')]
  }
  return table([
    row('epsilon', 'epsilon', epsilon, 'up', bound),
    row('delta', 'delta', result.delta, 'up'),
    row('noiseMultiplier', 'noise multiplier', result.noiseMultiplier, 'up'),
    row('sampleRate', 'sample rate', result.sampleRate, 'down'),
    row('steps', 'steps', result.steps, 'down'),
    ['accountant', accountant],
    ['relation', result.relation],
    ['sampling', result.sampling],
  ])
}

function asGiven(value: number): string {
  return value > 0 && value < 1e-3 ? value.toExponential() : String(value)
}
