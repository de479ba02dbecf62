import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { choice, group, integer, text, toggle } from '../flags.js'
import { untilInterrupted } from '../interrupt.js'
import { printResult, table } from '../output.js'
import { WEIGHT_TYPES } from '../weight-types.js'

export const mergeCommand = defineCommand({
  name: 'merge',
  summary: 'Write the adapters of a LoRA run into plain weights',
  description:
    'Adds the adapters to the weights of the model that they belong to, and writes a model folder in the Hugging Face layout ' +
    'with the tokenizer and the certificate. Adapters are those of a run with --trainable lora --release adapters, or made by ' +
    'PEFT. A release that is merged already is copied.',
  operands: { dir: 'Run folder, release folder, or a folder with adapter_config.json' },
  flags: {
    ...group('Model', {
      base: text(
        '<model>',
        'The model that the adapters belong to: a folder, or owner/name on the hub',
        'as adapter_config.json names it',
      ),
      revision: text('<revision>', 'Branch, tag or commit of that model on the hub', 'main'),
    }),
    ...group('Result', {
      output: text('<dir>', 'Model folder to make (needed)'),
      overwrite: toggle('Replace the model that the folder holds'),
      dtype: choice(
        '<type>',
        ['float32', 'bfloat16', 'float16'],
        "What weights are written as (default: the base's type)",
      ),
    }),
    ...group('Machine', { threads: integer('<n>', 'Threads', 'what the container allows') }),
  },
  examples: [
    'dp-moe merge runs/reviews --output reviews-model',
    'dp-moe merge adapters --base google-bert/bert-base-uncased --output reviews-model',
  ],
  async run({ json, debug: _, output, dtype, ...options }, [path]) {
    if (output === undefined) throw usageError('--output is needed. See dp-moe merge --help')
    const [{ merge }, { withDownloadBar }] = await Promise.all([
      import('../../train/index.js'),
      import('../hub-model.js'),
    ])
    const { base, merged } = await untilInterrupted(
      (signal) =>
        withDownloadBar((bar) =>
          merge(path!, output, { ...options, ...(dtype && { dtype: WEIGHT_TYPES[dtype] }), ...bar, signal }),
        ),
      'Stopping; nothing is written. Interrupt again to stop at once.',
    )
    await printResult(json, { output, base: base ?? null, merged }, () =>
      table([
        ['model', output],
        ['base', base ?? 'none: the weights were plain already'],
        ['merged', `${merged} matrices`],
      ]),
    )
  },
})
