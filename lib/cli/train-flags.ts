import type { trainFlags } from './commands/train.js'
import { usageError } from './failure.js'
import { flagName, type Values } from './flags.js'

type TrainValues = Values<typeof trainFlags>
type Name = keyof TrainValues

/** Each of these cannot be given with any of those, and why. */
const CONTRADICTIONS: readonly (readonly [Name, readonly Name[], string])[] = [
  [
    'nonPrivate',
    ['targetEpsilon', 'targetDelta', 'noiseMultiplier', 'maxGradNorm', 'clipping', 'relation', 'keyFile'],
    'it is for private training',
  ],
  ['targetEpsilon', ['noiseMultiplier'], 'the noise is solved for'],
  ['epochs', ['steps'], 'both say how long to train'],
  ['resume', ['overwrite'], 'one keeps the earlier run, the other removes it'],
  ['seed', ['keyFile'], 'a seeded run is not private'],
]

/**
 * Refuses flags that are wrong whatever the data.
 *
 * @throws DpMoeError USAGE naming the flag that is missing, or the two that contradict each other
 */
export function requireConsistentFlags(values: TrainValues): void {
  const has = (name: Name) => values[name] !== undefined && values[name] !== false
  for (const name of ['train', 'output'] as const) if (!has(name)) throw usageError(`${flagName(name)} is needed${SEE}`)
  if (values.relation === 'add-or-remove-one') requireNothingFromN(has)
  for (const [name, others, reason] of CONTRADICTIONS) {
    const other = has(name) ? others.find(has) : undefined
    if (other) throw usageError(`${flagName(other)} cannot be given with ${flagName(name)}: ${reason}${SEE}`)
  }
  if (!has('nonPrivate') && !has('targetEpsilon') && !has('noiseMultiplier')) {
    throw usageError(
      `--target-epsilon (or --noise-multiplier) is needed: state the privacy budget, or --non-private${SEE}`,
    )
  }
}

const SEE = '. See dp-moe train --help'

/** Under add-or-remove-one the number of examples is secret, so nothing may be derived from it. */
function requireNothingFromN(has: (name: Name) => boolean): void {
  if (has('epochs')) {
    throw usageError(
      `--epochs cannot be given with --relation add-or-remove-one: it reads the number of examples, which is secret. State --steps${SEE}`,
    )
  }
  const needed = ['sampleRate', 'steps', 'expectedBatchSize', 'targetDelta'] as const
  const missing = needed.find((name) => !has(name))
  if (missing === undefined) return
  throw usageError(
    `${flagName(missing)} is needed with --relation add-or-remove-one: its default reads the number of examples, which is secret${SEE}`,
  )
}
