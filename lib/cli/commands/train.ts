import type { TrainOptions, TrainResult } from '../../train/options.js'
import { defineCommand } from '../command.js'
import { choice, group, integer, list, number, settings, text, textOrNumber, toggle } from '../flags.js'
import { untilInterrupted } from '../interrupt.js'
import { duration, printResult, shortNumber, table } from '../output.js'
import { requireConsistentFlags } from '../train-flags.js'

export const trainFlags = {
  ...group('Data', {
    train: text('<file>', 'Training data: JSONL, CSV or TSV (needed)'),
    validation: textOrNumber(
      '<file|fraction>',
      'Validation file, or the share of the training file to set aside',
      'none',
    ),
    text: text('<column>', 'Column with the text', 'text'),
    label: text('<column>', 'Column with the label, names or numbers', 'label'),
    labels: list('<a,b>', 'State the label set, which is public', 'the names found in the file, treated as public'),
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
    model: settings('<name=value>', 'Override a default of config.json, e.g. numExperts=8 (may be repeated)'),
  }),
  ...group('Machine', {
    threads: integer('<n>', 'Threads to use', 'what the machine or its container allows'),
    memoryBudget: number('<bytes>', 'What activations may take', '1 GiB'),
    maxTokensPerMicrobatch: integer('<rows>', 'Rows that are computed at once', 'from --memory-budget'),
  }),
}

export const trainCommand = defineCommand({
  name: 'train',
  summary: 'Train a classifier with differential privacy',
  description:
    'Losses, speeds and the validation accuracy are computed without noise: they are for you alone, as is all of private/.\n\n' +
    'With --relation add-or-remove-one the number of examples N is secret: state --sample-rate, --steps, ' +
    '--expected-batch-size and --target-delta.\n\n' +
    'Ctrl-C stops after the step with a checkpoint; --resume goes on from it.',
  flags: trainFlags,
  examples: [
    'dp-moe train --train mails.jsonl --validation 0.2 --target-epsilon 3 --output runs/mails',
    'dp-moe train --train sst2.tsv --text sentence --label label --target-epsilon 8 --output runs/sst2 --json',
    'dp-moe train --config run.yaml --resume',
  ],
  async run({ json, debug: _, ...values }) {
    requireConsistentFlags(values)
    const [{ train }, { progressView }] = await Promise.all([import('../../train/index.js'), import('../progress.js')])
    const view = progressView({ bar: !json && process.stderr.isTTY === true })
    const result = await untilInterrupted(async (signal) => {
      try {
        return await train({
          ...(values as TrainOptions),
          signal,
          onProgress: (progress) => view.update(progress),
          onMessage: (message) => view.message(message),
        })
      } finally {
        view.stop()
      }
    })
    await printResult(json, machineResult(result), () => describe(result))
  },
})

function machineResult({ output, private: isPrivate, examples, steps, seconds, ...rest }: TrainResult): object {
  const { epsilon = null, delta = null, noiseMultiplier = null, validation = null } = rest
  return { output, private: isPrivate, examples, steps, seconds, epsilon, delta, noiseMultiplier, validation }
}

function describe(result: TrainResult): string {
  const { validation } = result
  const held =
    validation === undefined
      ? 'none'
      : `accuracy ${(100 * validation.accuracy).toFixed(2)} %, loss ${validation.loss.toFixed(4)} on ` +
        `${validation.examples} examples${result.private ? ' (computed without noise: keep it to yourself)' : ''}`
  const budget = result.private
    ? `eps ${shortNumber(result.epsilon!, 'up')} at delta ${shortNumber(result.delta!)}, noise multiplier ${shortNumber(result.noiseMultiplier!)}`
    : 'none: this model was trained without privacy'
  return table([
    ['model', `${result.output}/release`],
    ['privacy', budget],
    ['validation', held],
    ['training', `${result.steps} steps on ${result.examples} examples in ${duration(result.seconds)}`],
  ])
}
