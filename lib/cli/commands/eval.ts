import { columnFlags } from '../column-flags.js'
import { defineCommand } from '../command.js'
import { usageError } from '../failure.js'
import { choice, group, integer, text } from '../flags.js'
import { machineFlags } from '../machine-flags.js'
import { printResult, table } from '../output.js'

export const evaluateCommand = defineCommand({
  name: 'eval',
  summary: 'Measure a trained model on data',
  description:
    'Of a classifier the accuracy; of a language model the perplexity, over all tokens that it is to write, and the share of them ' +
    'that it would have written. The figures are computed without noise: they are private where the data are.',
  operands: { dir: 'Run folder, or a release folder' },
  flags: {
    ...group('Data', {
      data: text('<file>', 'Data to measure on: JSONL, CSV, TSV or Parquet (this or --dataset is needed)'),
      dataset: text('<name>', 'A data set of the hub instead: owner/name or owner/name/part, such as glue/sst2'),
      datasetRevision: text('<revision>', 'Branch, tag or commit of --dataset', 'main'),
      split: choice('<split>', ['train', 'validation', 'test'], 'Split of --dataset', undefined),
      ...columnFlags,
      maxLength: integer('<tokens>', 'Longest text of a language model; longer ones are cut', 'that of its training'),
      format: choice(
        '<format>',
        ['jsonl', 'csv', 'tsv', 'parquet'],
        "Format of the data, where the file's extension does not tell",
      ),
    }),
    ...machineFlags,
  },
  examples: [
    'dp-moe eval runs/mails --data held-out.jsonl',
    'dp-moe eval runs/mails/release --data test.csv --json',
    'dp-moe eval runs/sst2 --dataset glue/sst2 --text sentence',
    'dp-moe eval runs/replies --data held-out.jsonl --prompt question --completion answer',
  ],
  async run({ json, debug: _, ...options }, [folder]) {
    const { data, dataset, datasetRevision, split } = options
    if (data === undefined && dataset === undefined) {
      throw usageError('--data (or --dataset) is needed. See dp-moe eval --help')
    }
    if (dataset === undefined && (split !== undefined || datasetRevision !== undefined)) {
      throw usageError('--split and --dataset-revision are for --dataset. See dp-moe eval --help')
    }
    if (data !== undefined && dataset !== undefined) {
      throw usageError('--data cannot be given with --dataset: both say what to measure on. See dp-moe eval --help')
    }
    const [{ evaluate }, { withDownloadBar }] = await Promise.all([
      import('../../train/index.js'),
      import('../hub-model.js'),
    ])
    const result = await withDownloadBar(({ onProgress }) =>
      evaluate(folder!, { ...options, ...(onProgress && { onDownload: onProgress }) }),
    )
    const { accuracy, examples, loss, tokens, perplexity, split: measured } = result
    const ofTokens = perplexity === undefined ? {} : { tokens, perplexity }
    const ofDataset = measured === undefined ? {} : { split: measured }
    const rows = Object.entries(ofDataset)
    await printResult(json, { ...ofDataset, accuracy, examples, loss, ...ofTokens }, () => {
      const share = `${(100 * accuracy).toFixed(2)} %`
      if (perplexity === undefined) {
        return table([...rows, ['accuracy', share], ['loss', loss.toFixed(4)], ['examples', String(examples)]])
      }
      return table([
        ...rows,
        ['perplexity', perplexity.toFixed(3)],
        ['loss', `${loss.toFixed(4)} of a token`],
        ['token accuracy', share],
        ['examples', `${examples}, ${tokens} tokens to predict`],
      ])
    })
  },
})
