import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { choice, group, text } from '../flags.js'
import { machineFlags } from '../machine-flags.js'
import { printResult, table } from '../output.js'

export const evaluateCommand = defineCommand({
  name: 'eval',
  summary: 'Measure a trained model on labelled data',
  description: 'The figures are computed without noise: they are private where the data are.',
  operands: { dir: 'Run folder, or a release folder' },
  flags: {
    ...group('Data', {
      data: text('<file>', 'Labelled data: JSONL, CSV or TSV (needed)'),
      text: text('<column>', 'Column with the text', 'text'),
      label: text('<column>', 'Column with the label', 'label'),
      format: choice(
        '<format>',
        ['jsonl', 'csv', 'tsv'],
        "Format of the data, where the file's extension does not tell",
      ),
    }),
    ...machineFlags,
  },
  examples: ['dp-moe eval runs/mails --data held-out.jsonl', 'dp-moe eval runs/mails/release --data test.csv --json'],
  async run({ json, debug: _, data, ...options }, [folder]) {
    if (data === undefined) throw usageError('--data is needed. See dp-moe eval --help')
    const { evaluate } = await import('../../train/index.js')
    const { accuracy, examples, loss } = await evaluate(folder!, { data, ...options })
    await printResult(json, { accuracy, examples, loss }, () =>
      table([
        ['accuracy', `${(100 * accuracy).toFixed(2)} %`],
        ['loss', loss.toFixed(4)],
        ['examples', String(examples)],
      ]),
    )
  },
})
