import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { progressView } from '../../lib/cli/progress.js'
import { Device, modelFolder, models, type TrainOptions, train } from '../../lib/index.js'
import { modelSettings, privateSettings, upcycling } from './settings.js'

/**
 * A pretrained sentence encoder turned into a mixture of experts and fine-tuned privately on SST-2: the paper's experiment
 * (docs/paper.md), one run of it. SST-2 is public, so its accuracy may be shown.
 *
 *     npm run demo:sst2 -- [MINILM] [SST2] [EPSILON]
 *
 * MINILM is a folder or a name on the hub, SST2 a folder with train.tsv and validation.tsv, or `glue/sst2` on the hub. A run
 * that was stopped goes on.
 */
const [minilm = 'sentence-transformers/all-MiniLM-L6-v2', sst2 = 'glue/sst2', epsilon = '8'] = process.argv.slice(2)
const folder = join('runs', 'sst2')
const mixture = join(folder, 'minilm-moe')
const output = join(folder, `epsilon-${epsilon}`)

if (!existsSync(mixture)) {
  using device = Device.open('cpu')
  await models.convertModel(device, await modelFolder(minilm), mixture, { upcycle: upcycling })
}
const data: Partial<TrainOptions> = existsSync(sst2)
  ? { train: join(sst2, 'train.tsv'), validation: join(sst2, 'validation.tsv') }
  : { dataset: sst2 }
const view = progressView({ bar: process.stderr.isTTY, title: `epsilon ${epsilon}` })
try {
  const result = await train({
    ...data,
    ...privateSettings,
    text: 'sentence',
    model: { pretrained: mixture, ...modelSettings },
    targetEpsilon: Number(epsilon),
    output,
    ...(existsSync(join(output, 'private', 'ledger.jsonl')) && { resume: true }),
    onProgress: (progress) => view.update(progress),
    onMessage: (message) => view.message(message),
  })
  const { accuracy, examples } = result.validation!
  console.log(`
validation accuracy  ${(100 * accuracy).toFixed(1)} % of ${examples}
guarantee            epsilon ${result.epsilon!.toFixed(2)} at delta ${result.delta!.toExponential(2)}, for each of ${result.examples} sentences
model, certificate   ${join(output, 'release')}
minutes              ${(result.seconds / 60).toFixed(0)}`)
} finally {
  view.stop()
}
