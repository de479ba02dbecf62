import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { usageError } from '../../lib/cli/failure.js'
import { warn } from '../../lib/cli/output.js'
import { Device, modelFolder, models, type TrainOptions } from '../../lib/index.js'
import { modelFingerprint } from '../../lib/models/hugging-face/fingerprint.js'
import { runDemo, trainWithView } from '../run-demo.js'
import { modelSettings, privateSettings, upcycling } from './settings.js'

/**
 * A pretrained sentence encoder turned into a mixture of experts and fine-tuned privately on SST-2: the paper's experiment
 * (docs/paper.md), one run of it. SST-2 is public, so its accuracy may be shown.
 */
const usage = `usage: npm run demo:sst2 -- [MINILM] [SST2] [EPSILON]
MINILM is a folder or a name on the hub (default sentence-transformers/all-MiniLM-L6-v2), SST2 a folder with train.tsv and
validation.tsv or a data set of the hub (default glue/sst2), EPSILON a number above 0 (default 8).`

const given = process.argv.slice(2)
const [minilm = 'sentence-transformers/all-MiniLM-L6-v2', sst2 = 'glue/sst2', epsilon = '8'] = given
const folder = join('runs', 'sst2')

if (given.includes('--help')) console.log(usage)
else await runDemo(main, 'Stopping after this step, with a checkpoint; interrupt again to stop at once.')

async function main(signal: AbortSignal): Promise<void> {
  if (given.length > 3 || !(Number(epsilon) > 0)) throw usageError('expected [MINILM] [SST2] [EPSILON], as --help says')
  const mixture = await upcycled(signal)
  const output = `${mixture}-epsilon-${epsilon}`
  if (existsSync(join(output, 'release'))) {
    console.log(`done already: ${join(output, 'release')}. Take ${output} away to do it again`)
    return
  }
  const canGoOn = existsSync(join(output, 'private', 'ledger.jsonl'))
  warn(
    `starts from ${mixture}; model and certificate will be in ${join(output, 'release')}, in 20 to 40 minutes of two cores`,
  )
  warn('Ctrl-C stops with a checkpoint, and the same command goes on from there')
  const data: Partial<TrainOptions> = existsSync(sst2)
    ? { train: join(sst2, 'train.tsv'), validation: join(sst2, 'validation.tsv') }
    : { dataset: sst2 }
  const result = await trainWithView(`epsilon ${epsilon}`, {
    ...data,
    ...privateSettings,
    text: 'sentence',
    model: { pretrained: mixture, ...modelSettings },
    targetEpsilon: Number(epsilon),
    output,
    signal,
    ...(canGoOn ? { resume: true } : { overwrite: true }),
  })
  const { accuracy, examples } = result.validation!
  console.log(`
validation accuracy  ${(100 * accuracy).toFixed(1)} % of ${examples}
guarantee            epsilon ${result.epsilon!.toFixed(2)} at delta ${result.delta!.toExponential(2)}, for each of ${result.examples} sentences
model, certificate   ${join(output, 'release')}
minutes              ${(result.seconds / 60).toFixed(0)}`)
}

/** The folder of the model as a mixture of experts, made where it is not there yet; each model has its own. */
async function upcycled(signal: AbortSignal): Promise<string> {
  const dense = await modelFolder(minilm, { signal })
  const mixture = join(folder, `mixture-${(await modelFingerprint(dense)).slice(0, 8)}`)
  if (!existsSync(mixture)) {
    using device = Device.open('cpu')
    await models.convertModel(device, dense, mixture, { upcycle: upcycling, signal })
  }
  return mixture
}
