import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import { modelSettings, upcycling } from '../../examples/sst2/settings.js'
import { autograd, Device, data, evaluate, models, nn, readCertificate, train } from '../../lib/index.js'
import { matrixSpeed } from '../matrix-speed.js'
import { type Cost, costOf } from './cost.js'
import { readSentences } from './held-out.js'
import { type PaperRow, paperRows, requireSettings, settingsOf } from './rows.js'
import { StepClock } from './step-clock.js'

/**
 * The experiment of the paper (arXiv 2402.07334) on SST-2.
 *
 *     node --import tsx benchmarks/paper/run.ts MINILM SST2 [ROW...]
 *
 * MINILM is a folder with all-MiniLM-L6-v2, SST2 one with train.tsv and validation.tsv (columns sentence and label). Rows
 * are those of rows.ts, all by default; what benchmarks/results/paper.json holds already is not run again, and a run that
 * was stopped goes on. `table.ts` then writes docs/paper.md.
 */
export interface PaperResult extends Cost {
  readonly row: string
  readonly seed: number
  readonly accuracy: number
  readonly loss: number
  readonly epsilon: number | undefined
  readonly noiseMultiplier: number | undefined
  readonly steps: number
  /** What it was trained with: results of other settings than those of rows.ts are refused. */
  readonly options: PaperRow['options']
  /** Largest share of the tokens that one expert gets, times the number of experts, over the mixtures: 1 is balance. */
  readonly imbalance: readonly number[]
}

const results = fileURLToPath(new URL('../results/paper.json', import.meta.url))
const [minilm, sst2, ...wanted] = process.argv.slice(2)
if (!minilm || !sst2) throw new Error('usage: benchmarks/paper/run.ts MINILM SST2 [ROW...]')
const work = join('runs', 'paper')
mkdirSync(work, { recursive: true })
const device = Device.open('cpu')
const speed = await matrixSpeed(device)
const starts = { dense: minilm, mixture: await upcycled() }
const validation = join(sst2, 'validation.tsv')

for (const row of paperRows) {
  if (wanted.length > 0 && !wanted.includes(row.name)) continue
  for (const seed of row.seeds) {
    const known = resultsSoFar().find((result) => result.row === row.name && result.seed === seed)
    if (known) {
      requireSettings(results, known.options, row)
      continue
    }
    const result = await measure(row, seed)
    writeFileSync(results, `${JSON.stringify([...resultsSoFar(), result], null, 1)}\n`)
    console.log(JSON.stringify(result))
  }
}

function resultsSoFar(): PaperResult[] {
  return existsSync(results) ? (JSON.parse(readFileSync(results, 'utf8')) as PaperResult[]) : []
}

/** MiniLM with 8 experts, one a token, in every second layer. */
async function upcycled(): Promise<string> {
  const folder = join(work, 'minilm-moe')
  if (!existsSync(folder)) {
    await models.convertModel(device, minilm!, folder, { upcycle: upcycling })
  }
  return folder
}

/** The training data, or every k-th sentence of it: the order of SST-2 is random. */
function trainingFile(share: number): string {
  const whole = join(sst2!, 'train.tsv')
  if (share === 1) return whole
  const path = join(work, `train-${share}.tsv`)
  const [header, ...lines] = readFileSync(whole, 'utf8').trimEnd().split('\n')
  writeFileSync(path, `${[header, ...lines.filter((_, index) => index % (1 / share) === 0)].join('\n')}\n`)
  return path
}

async function measure(row: PaperRow, seed: number): Promise<PaperResult> {
  const output = join(work, `${row.name.replace(/\W+/g, '-')}-${seed}`)
  const release = join(output, 'release')
  const file = trainingFile(row.share)
  const resume = existsSync(join(output, 'private'))
  const settings = `${output}.settings.json`
  if (resume && !existsSync(settings))
    throw new Error(`${output} does not say with which settings it began: take it out`)
  if (resume) requireSettings(settings, JSON.parse(readFileSync(settings, 'utf8')), row)
  else writeFileSync(settings, JSON.stringify(settingsOf(row)))
  const clock = new StepClock(`${output}.times.json`, resume)
  // What was stopped after its release is measured now.
  if (!existsSync(release)) {
    await train({
      train: file,
      text: 'sentence',
      output,
      resume,
      seed,
      ...row.options,
      model: { pretrained: starts[row.start], ...modelSettings, ...row.model },
      onProgress: ({ step, steps, loss, secondsLeft }) => {
        clock.ended(step)
        if (step % 10 === 0) console.error(row.name, seed, `${step}/${steps}`, loss.toFixed(3), secondsLeft.toFixed(0))
      },
      onMessage: ({ text }) => console.error(text),
    })
  }
  const { accuracy, loss } = await evaluate(output, { data: validation, text: 'sentence' })
  const certificate = await readCertificate(join(release, 'certificate.json'))
  const stated = certificate.mechanism === 'none' ? undefined : certificate
  const { steps } = clock
  return {
    row: row.name,
    seed,
    accuracy,
    loss,
    epsilon: stated?.epsilon,
    noiseMultiplier: stated?.noiseMultiplier,
    steps,
    options: settingsOf(row),
    ...(await costOf({ row, file, release, steps, time: clock.total(), speed })),
    imbalance: row.start === 'mixture' ? await imbalance(release) : [],
  }
}

/** How the validation data's tokens fall on the experts of a trained model. */
async function imbalance(release: string): Promise<number[]> {
  using model = await models.BertClassifier.fromPretrained(device, release)
  const tokenizer = await data.HuggingFaceTokenizer.fromFile(release)
  const sentences = readSentences(validation).map(({ text }) => text)
  const set = await data.encodeDataset(sentences, new Array(sentences.length).fill(0), tokenizer)
  const units = Int32Array.from(sentences.keys())
  using telemetry = new nn.Telemetry(device)
  await device.scopeAsync(async () => {
    const context = { tape: new autograd.Tape(device), training: false, telemetry }
    await model.logits(models.textBatch(device, set.batch(units), set.labelsOf(units)), context).data()
  })
  const loads = await telemetry.takeExpertLoads()
  return Object.values(loads).map((shares) => shares.length * Math.max(...shares))
}
