import { isDeepStrictEqual } from 'node:util'
import { adapters, common, nonPrivateSettings, privateSettings } from '../../examples/sst2/settings.js'
import type { TrainOptions } from '../../lib/index.js'

/** What a row's training starts from: MiniLM as it is, or upcycled. */
export type Start = 'dense' | 'mixture'

/** A line of docs/paper.md: one way to train, measured once for each seed. */
export interface PaperRow {
  readonly name: string
  readonly start: Start
  /** How much of the training data: 1, or a part. */
  readonly share: number
  readonly seeds: readonly number[]
  readonly options: Partial<TrainOptions>
  /** Settings of the pretrained model. */
  readonly model?: Readonly<Record<string, string | number | boolean>>
}

/** What a row trains with: the options of training and those of the pretrained model, together. */
export function settingsOf({ options, model }: PaperRow): PaperRow['options'] {
  return { ...options, ...(model && { model }) }
}

/** Refuses what was trained with other settings than those of its row. `what`: where they are written. */
export function requireSettings(what: string, settings: PaperRow['options'], row: PaperRow): void {
  if (isDeepStrictEqual(settings, settingsOf(row))) return
  throw new Error(`${what} is of '${row.name}' with other settings than those of rows.ts: take it out, and its run`)
}

const three = [1, 2, 3]
const one = [1]

/** On all the data. */
function whole(name: string, options: PaperRow['options'], seeds = one, start: Start = 'mixture'): PaperRow {
  return { name, start, share: 1, seeds, options }
}

function privately(targetEpsilon: number, changes: PaperRow['options'] = {}): PaperRow['options'] {
  return { ...privateSettings, ...changes, targetEpsilon }
}

/** Another way to spend the budget: fewer steps, of a larger bound and batch, and adapters on the experts too. */
const largeBound: PaperRow['options'] = {
  maxGradNorm: 8,
  loraTargets: ['attention', 'experts'],
  learningRate: 6e-3,
  expectedBatchSize: 4096,
  steps: 82,
}

/** The experiment of arXiv 2402.07334, section 4: accuracy with and without privacy, from the same start. */
const main: PaperRow[] = [
  whole('non-private', nonPrivateSettings, three),
  whole('epsilon 8', privately(8), three),
  whole('epsilon 8, ten passes', privately(8, { learningRate: 6e-3, steps: 329 })),
  whole('epsilon 8, C = 8', privately(8, largeBound)),
  whole('epsilon 3', privately(3)),
  whole('epsilon 1', privately(1)),
  whole('dense, non-private', nonPrivateSettings, one, 'dense'),
  whole('dense, epsilon 8', privately(8), one, 'dense'),
]

/** Five passes. */
const quarter: Partial<TrainOptions> = {
  ...common,
  maxGradNorm: 1,
  targetEpsilon: 8,
  expectedBatchSize: 1024,
  steps: 82,
}
const withRouter: Partial<TrainOptions> = { ...adapters, loraTargets: ['attention', 'router'] }

/** Which of the choices matter: each differs from the first, or from the trained router, in one. */
const choices: [string, Partial<TrainOptions>, NonNullable<PaperRow['model']>][] = [
  ['quarter', adapters, {}],
  ['quarter, trained router', withRouter, {}],
  ['quarter, trained router, no balance loss', withRouter, { balanceLoss: 0 }],
  ['quarter, trained router, released load', withRouter, { releaseLoad: true }],
  ['quarter, C = 8', { ...adapters, maxGradNorm: 8 }, {}],
  ['quarter, per-layer clipping', { ...adapters, clipping: 'per-layer' }, {}],
  ['quarter, automatic clipping', { ...adapters, clipping: 'automatic' }, {}],
  ['quarter, adapters in layers 3 to 5', { ...adapters, loraLayers: [3, 4, 5] }, {}],
  ['quarter, adapters on experts too', { ...adapters, loraTargets: ['attention', 'experts'] }, {}],
  ['quarter, every weight', { trainable: 'all', learningRate: 5e-4 }, {}],
  ['quarter, biases', { trainable: 'bias', learningRate: 6e-3 }, {}],
]

export const paperRows: readonly PaperRow[] = [
  ...main,
  ...choices.map(([name, options, model]) => ({
    name,
    start: 'mixture' as const,
    share: 0.25,
    seeds: one,
    options: { ...quarter, ...options },
    model,
  })),
]
