import type { EvaluationResult, TrainOptions, TrainResult } from '../../train/options.js'
import { defineCommand } from '../command.js'
import { untilInterrupted } from '../interrupt.js'
import { duration, printResult, shortNumber, table } from '../output.js'
import { requireConsistentFlags, trainFlags } from '../train-flags.js'

export const trainCommand = defineCommand({
  name: 'train',
  summary: 'Train a classifier or a language model with differential privacy',
  description:
    'Losses, speeds and the validation accuracy are computed without noise: they are for you alone, as is all of private/.\n\n' +
    'With --relation add-or-remove-one the number of examples N is secret: state --sample-rate, --steps, ' +
    '--expected-batch-size and --target-delta.\n\n' +
    'Ctrl-C stops after the step with a checkpoint; --resume goes on from it.',
  flags: trainFlags,
  examples: [
    'dp-moe train --train mails.jsonl --validation 0.2 --target-epsilon 3 --output runs/mails',
    'dp-moe train --train sst2.tsv --text sentence --label label --target-epsilon 8 --output runs/sst2 --json',
    'dp-moe train --task causal-lm --model ./olmoe --trainable lora --train chats.jsonl --prompt question --completion answer --target-epsilon 8 --output runs/chats',
    'dp-moe train --task seq2seq --model google/switch-base-8 --train pairs.csv --source article --target summary --target-epsilon 8 --output runs/pairs',
    'dp-moe train --config run.yaml --resume',
  ],
  async run({ json, debug: _, ...values }) {
    requireConsistentFlags(values)
    const [{ train }, { progressView }, { withDownloadBar }] = await Promise.all([
      import('../../train/index.js'),
      import('../progress.js'),
      import('../hub-model.js'),
    ])
    const view = progressView({ bar: !json && process.stderr.isTTY === true })
    const run = (signal: AbortSignal) =>
      withDownloadBar(async ({ onProgress: onDownload }) => {
        try {
          return await train({
            ...(values as TrainOptions),
            signal,
            ...(onDownload && { onDownload }),
            onProgress: (progress) => view.update(progress),
            onMessage: (message) => view.message(message),
          })
        } finally {
          view.stop()
        }
      })
    const result = await untilInterrupted(
      run,
      'Stopping after this step, with a checkpoint; interrupt again to stop at once.',
    )
    await printResult(json, machineResult(result), () => describe(result))
  },
})

function machineResult({ output, private: isPrivate, examples, users, steps, seconds, ...rest }: TrainResult): object {
  const { epsilon = null, delta = null, noiseMultiplier = null, validation = null } = rest
  const counts = { examples, ...(users !== undefined && { users }) }
  return { output, private: isPrivate, ...counts, steps, seconds, epsilon, delta, noiseMultiplier, validation }
}

function figuresOf({ accuracy, loss, perplexity }: EvaluationResult): string {
  const share = `${(100 * accuracy).toFixed(2)} %`
  if (perplexity === undefined) return `accuracy ${share}, loss ${loss.toFixed(4)}`
  return `perplexity ${perplexity.toFixed(3)}, token accuracy ${share}`
}

function describe(result: TrainResult): string {
  const { validation } = result
  const held =
    validation === undefined
      ? 'none'
      : `${figuresOf(validation)} on ` +
        `${validation.examples} examples${result.private ? ' (computed without noise: keep it to yourself)' : ''}`
  const budget = result.private
    ? `eps ${shortNumber(result.epsilon!, 'up')} at delta ${shortNumber(result.delta!)}, noise multiplier ${shortNumber(result.noiseMultiplier!)}`
    : 'none: this model was trained without privacy'
  const users = result.users === undefined ? '' : ` of ${result.users} users`
  return table([
    ['model', `${result.output}/release`],
    ['privacy', budget],
    ['validation', held],
    ['training', `${result.steps} steps on ${result.examples} examples${users} in ${duration(result.seconds)}`],
  ])
}
