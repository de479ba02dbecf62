import { columnNames, columnsOfTask } from '../train/columns.js'
import { trainChoices } from '../train/options.js'
import { columnFlags } from './column-flags.js'
import { usageError } from './failure.js'
import {
  choice,
  choices,
  flagName,
  group,
  integer,
  integers,
  list,
  number,
  settings,
  text,
  textOrNumber,
  toggle,
  type Values,
} from './flags.js'
import { machineFlags } from './machine-flags.js'

/** The flags of `dp-moe train`: the names of TrainOptions. */
export const trainFlags = {
  ...group('Task', {
    task: choice(
      '<task>',
      trainChoices.task,
      'What to learn (the last two with --model): the class of a text, to continue or complete one, to answer one with another',
      'classification',
    ),
  }),
  ...group('Data', {
    train: text('<file>', 'Training data: JSONL, CSV, TSV or Parquet (this or --dataset is needed)'),
    dataset: text('<name>', 'A data set of the hub instead: owner/name or owner/name/part, such as glue/sst2'),
    datasetRevision: text('<revision>', 'Branch, tag or commit of --dataset', 'main'),
    validation: textOrNumber(
      '<file|fraction>',
      'Validation file, or the share of the training data to set aside',
      "none; with --dataset its split 'validation'",
    ),
    ...columnFlags,
    group: text('<column>', "Column that says whose an example is: a user's examples are protected together", 'none'),
    maxExamplesPerUser: integer('<n>', 'Examples kept of a user, with --group; public', '16'),
    labels: list(
      '<a,b>',
      'State the label set, which is public',
      'as --dataset states it, or the names found in the file, treated as public',
    ),
    maxLength: integer(
      '<tokens>',
      'State the longest text, which is public; longer ones are cut',
      '1024, with attention 256',
    ),
    tokenizer: text('<tokenizer.json>', 'A Hugging Face tokenizer', 'word hashing'),
  }),
  ...group('Result', {
    output: text('<dir>', 'Run folder to make: release/ may be published, private/ may not (needed)'),
    overwrite: toggle('Replace the run that the folder holds'),
    resume: toggle('Go on from the last checkpoint of the folder; give the same flags again'),
    checkpointEvery: integer('<steps>', 'Steps between checkpoints', 'a tenth of the run'),
  }),
  ...group('Privacy', {
    targetEpsilon: number('<eps>', 'Budget; the noise is solved for (this or --noise-multiplier is needed)'),
    targetDelta: number('<delta>', 'Chance that the guarantee may fail', '1/N; needed with add-or-remove-one'),
    noiseMultiplier: number('<sigma>', 'Noise in units of the clipping norm, instead of --target-epsilon'),
    maxGradNorm: number('<C>', "L2 bound of one example's gradient", 'chosen with the model'),
    clipping: choice('<mode>', ['flat', 'per-layer', 'automatic'], 'How gradients are bounded', 'flat'),
    relation: choice(
      '<relation>',
      ['zero-out', 'add-or-remove-one', 'replace-one'],
      'What neighbouring data sets are',
      'zero-out',
    ),
    sampleRate: number('<q>', 'Chance of an example to be in a batch', '--expected-batch-size / N'),
    steps: integer('<n>', 'Number of steps', 'from --epochs'),
    nonPrivate: toggle('Train without privacy'),
    seed: integer('<n>', 'Replayable and NOT private: noise and sampling follow from the seed'),
    keyFile: text('<file>', '32 secret bytes, kept outside the run folder: private, and replayable after a crash'),
  }),
  ...group('Training', {
    expectedBatchSize: number('<B>', 'Expected examples in a batch', 'by N'),
    epochs: number('<K>', 'Expected passes over the data', 'by N'),
    learningRate: number('<rate>', 'Peak learning rate', 'chosen with the model'),
    model: settings(
      '<model|name=value>',
      'Start from a pretrained model (a folder, or owner/name on the hub), or override a default of config.json, e.g. numExperts=8 (may be repeated)',
      undefined,
      'pretrained',
    ),
    trainable: choice('<choice>', trainChoices.trainable, 'Which parameters train', 'all'),
    loraRank: integer('<r>', 'Rank of the adapters of --trainable lora', '8'),
    loraAlpha: number('<alpha>', 'Scale of the adapters times their rank', '16'),
    loraTargets: choices(
      '<a,b>',
      ['attention', 'experts', 'router'],
      'What gets adapters (experts: the feed-forward parts, dense ones too)',
      'attention,experts',
    ),
    loraLayers: integers(
      '<i,j>',
      'Numbers of the layers, from 0, that get adapters; below the lowest nothing is trained or computed backwards',
      'all',
    ),
    release: choice(
      '<form>',
      trainChoices.release,
      'What a run with --trainable lora releases: plain weights, or adapters in the layout of PEFT',
      'merged',
    ),
  }),
  ...machineFlags,
  ...group('Machine', {
    memoryBudget: number('<bytes>', 'What activations may take', '1 GiB'),
    maxTokensPerMicrobatch: integer(
      '<rows>',
      'Rows that are computed at once: bounds memory whatever the batch',
      'from --memory-budget',
    ),
    activationCheckpointing: toggle('Keep only the inputs of layers and compute them again: less memory, more time'),
  }),
}

type TrainValues = Values<typeof trainFlags>
type Name = keyof TrainValues

/** Each of these cannot be given with any of those, and why. */
const CONTRADICTIONS: readonly (readonly [Name, readonly Name[], string])[] = [
  [
    'nonPrivate',
    ['targetEpsilon', 'targetDelta', 'noiseMultiplier', 'maxGradNorm', 'clipping', 'relation', 'keyFile'],
    'it is for private training',
  ],
  ['dataset', ['train'], 'both say what to train on'],
  ['targetEpsilon', ['noiseMultiplier'], 'the noise is solved for'],
  ['text', ['prompt', 'completion'], 'of a prompt and its completion the latter is learnt, of a text all'],
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
  if (!has('output')) throw usageError(`--output is needed${SEE}`)
  if (!has('train') && !has('dataset')) throw usageError(`--train (or --dataset) is needed${SEE}`)
  if (has('datasetRevision') && !has('dataset')) throw usageError(`--dataset-revision is for --dataset${SEE}`)
  requireTaskFlags(values, has)
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

/** What a task needs, and what is only for others. */
function requireTaskFlags(values: TrainValues, has: (name: Name) => boolean): void {
  const { task = 'classification', model } = values
  const own = columnsOfTask[task]
  const foreign = columnNames.find((name) => has(name) && !own.includes(name))
  if (foreign !== undefined) {
    const names = own.map(flagName).join(', ')
    throw usageError(`${flagName(foreign)} cannot be given with --task ${task}, which reads ${names}${SEE}`)
  }
  if (task === 'classification') return
  if (model?.pretrained === undefined) {
    throw usageError(`--model is needed with --task ${task}: a folder, or owner/name on the hub${SEE}`)
  }
  if (has('labels')) throw usageError(`--labels cannot be given with --task ${task}: it has no classes${SEE}`)
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
