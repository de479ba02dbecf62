import type * as Accounting from '../../accounting/index.js'
import type { DpEvent } from '../../accounting/index.js'
import { DpMoeError } from '../../errors.js'
import type { Account } from '../account-result.js'
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
    sampling: choice(
      '<kind>',
      ['poisson', 'truncated-poisson', 'fixed-size', 'none'],
      'How batches are drawn; fixed-size needs --accountant rdp --relation replace-one',
      'poisson',
    ),
    datasetSize: integer('<N>', 'Number of examples, for truncated-poisson and fixed-size'),
    maxBatchSize: integer('<B>', 'Most examples that a truncated-poisson batch keeps, or the size of a fixed-size one'),
  }),
  ...group('Output', {
    plot: text('<file>', 'Draw epsilon over steps and the trade-off curve as SVG'),
  }),
}

type AccountValues = Values<typeof accountFlags>

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
    'dp-moe account --sample-rate 0.01 --noise-multiplier 1 --steps 1000 --delta 1e-5 --plot epsilon.svg',
    'dp-moe account --ledger runs/mails',
  ],
  async run({ json, debug: _, plot, ...values }) {
    const answer = values.ledger === undefined ? await solveFor(values) : await accountRun(values)
    const { result, eventAt } = answer
    if (plot !== undefined) {
      const { plotAccount } = await import('./account-plot.js')
      const { accountant, relation, delta, steps } = result
      await plotAccount(plot, { accountant, relation, delta, steps, eventAt })
    }
    await printResult(json, result, () => describe(answer))
  },
})

const certified = 'certified upper bound'

interface Answer {
  readonly result: Account
  /** Name of what was solved for; empty for a run, whose figures are all its own. */
  readonly solved: string
  /** What epsilon is. */
  readonly claim: string
  /** What a reader of the figures must know beside them, in rows of the table. */
  readonly remarks: readonly (readonly string[])[]
  /** The event of the first `steps` steps. */
  readonly eventAt: (steps: number) => DpEvent
}

async function solveFor({ ledger: _, sampling = 'poisson', ...given }: AccountValues): Promise<Answer> {
  const values = { ...given, sampleRate: stepSampleRate(sampling, given) }
  const missing = SOLVABLE.filter((name) => values[name] === undefined)
  if (missing.length !== 1) {
    const left = missing.length === 0 ? 'none is left out' : `left out are ${missing.map(flagName).join(', ')}`
    const rule = `leave out exactly one of ${SOLVABLE.map(flagName).join(', ')}, which is solved for`
    throw new DpMoeError('INVALID_ARGUMENT', `${rule}; ${left}. See dp-moe account --help`)
  }
  const accounting = await import('../../accounting/index.js')
  const { datasetSize, maxBatchSize, ...request } = values
  const step = stepEvent(accounting, sampling, datasetSize, maxBatchSize)
  const { epsilon, lowerBound, upperBound, delta, noiseMultiplier, sampleRate, steps, accountant, relation } =
    accounting.solve({ ...request, step })
  const bounds = { epsilon, lowerBound, upperBound }
  const shown = sampling === 'fixed-size' ? batchOf(sampleRate, datasetSize!) / datasetSize! : sampleRate
  const result = { ...bounds, delta, noiseMultiplier, sampleRate: shown, steps, accountant, relation, sampling }
  const eventAt = (count: number) => accounting.selfComposed(count, step(noiseMultiplier, sampleRate))
  return { result, solved: missing[0]!, claim: certified, remarks: [], eventAt }
}

/** The sample rate that the flags of a sampling say, where they say one. */
function stepSampleRate(
  sampling: string,
  { sampleRate, datasetSize, maxBatchSize }: AccountValues,
): number | undefined {
  const sized = { datasetSize, maxBatchSize }
  const needed =
    sampling === 'truncated-poisson'
      ? (['datasetSize', 'maxBatchSize'] as const)
      : sampling === 'fixed-size'
        ? (['datasetSize'] as const)
        : []
  for (const name of ['datasetSize', 'maxBatchSize'] as const) {
    if (needed.length === 0 && sized[name] !== undefined) {
      throw usageError(`${flagName(name)} cannot be given with --sampling ${sampling}: it changes nothing`)
    }
  }
  for (const name of needed) {
    if (sized[name] === undefined) throw usageError(`--sampling ${sampling} needs ${flagName(name)}`)
  }
  if (sampling === 'none' && sampleRate !== undefined) {
    throw usageError('--sample-rate cannot be given with --sampling none: every example is in every batch')
  }
  if (sampling === 'fixed-size' && maxBatchSize !== undefined) {
    if (sampleRate !== undefined)
      throw usageError('--sample-rate and --max-batch-size say the same with --sampling fixed-size')
    return maxBatchSize / datasetSize!
  }
  return sampling === 'none' ? 1 : sampleRate
}

/** What one step does, for the accountant. */
function stepEvent(
  { poissonSampled, truncatedPoissonSampled, fixedSizeSampled, gaussian }: typeof Accounting,
  sampling: string,
  datasetSize: number | undefined,
  maxBatchSize: number | undefined,
): (noiseMultiplier: number, sampleRate: number) => DpEvent {
  switch (sampling) {
    case 'truncated-poisson':
      return (noise, rate) => truncatedPoissonSampled(rate, datasetSize!, maxBatchSize!, gaussian(noise))
    case 'fixed-size':
      return (noise, rate) =>
        fixedSizeSampled(datasetSize!, maxBatchSize ?? batchOf(rate, datasetSize!), gaussian(noise))
    default:
      return (noise, rate) => poissonSampled(rate, gaussian(noise))
  }
}

/** The whole batch size for a rate, rounded up: rates that are solved for are off by rounding. */
function batchOf(sampleRate: number, datasetSize: number): number {
  return Math.max(1, Math.ceil(sampleRate * datasetSize - 1e-6))
}

async function accountRun({ ledger, ...values }: AccountValues): Promise<Answer> {
  const fixed = [
    'sampleRate',
    'noiseMultiplier',
    'steps',
    'epsilon',
    'relation',
    'sampling',
    'datasetSize',
    'maxBatchSize',
  ] as const
  const extra = fixed.find((name) => values[name] !== undefined)
  if (extra) throw usageError(`${flagName(extra)} cannot be given with --ledger: the ledger says it`)
  const { accountLedger } = await import('../ledger-account.js')
  const account = await accountLedger(ledger!, values)
  const { seeded, plannedSteps, comparedWith } = account.result
  const remarks = [
    ['planned steps', String(plannedSteps)],
    ...(seeded ? [['NOT private', 'noise and sampling come from a seed: whoever knows it can take them away']] : []),
    comparedWith
      ? ['ledger', `whole, by the run's ${comparedWith}`]
      : ['ledger', 'compared with no certificate or checkpoint: steps missing at its end would not be seen'],
  ]
  const claim = seeded ? 'that of a run with a secret key, which this was not' : certified
  return { ...account, solved: '', claim, remarks }
}

function describe({ result, solved, claim, remarks }: Answer): string {
  const { epsilon, lowerBound, accountant } = result
  const bound = `${claim}${accountant === 'pld' ? `; at least ${shortNumber(lowerBound, 'down')}` : ''}`
  const row = (name: string, title: string, value: number | null, safe: 'up' | 'down', remark?: string) => {
    const shown =
      value === null ? 'varies' : name === solved || remark || solved === '' ? shortNumber(value, safe) : asGiven(value)
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
    ...remarks,
  ])
}

function asGiven(value: number): string {
  return value > 0 && value < 1e-3 ? value.toExponential() : String(value)
}
