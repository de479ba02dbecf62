import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { data, type TrainResult } from '../../lib/index.js'
import type { PaperRow } from './rows.js'
import type { StepTime } from './step-clock.js'

/** What a training run has taken. */
export interface Cost {
  readonly seconds: number
  readonly processorSeconds: number
  /** Expected tokens of the run over its seconds. */
  readonly tokensPerSecond: number
  /** Processor time of a thread over the time in which a large matrix product does as many operations. */
  readonly ofFlopLimit: number
}

interface Measured {
  readonly row: PaperRow
  readonly file: string
  readonly result: TrainResult
  readonly time: StepTime
  /** GFLOP/s of a large matrix product. */
  readonly speed: number
}

const THREADS = 2

/** Tokens a second, and how far from the limit that the machine's matrix products set. */
export async function costOf(measured: Measured): Promise<Cost> {
  const { row, result, time, speed } = measured
  const tokens = result.steps * row.options.expectedBatchSize! * (await meanTokens(measured))
  const gigaflops = (tokens * flopsPerToken(result.output, row)) / 1e9
  return {
    ...time,
    tokensPerSecond: tokens / time.seconds,
    ofFlopLimit: time.processorSeconds / THREADS / (gigaflops / speed),
  }
}

async function meanTokens({ result, file }: Measured): Promise<number> {
  const tokenizer = await data.HuggingFaceTokenizer.fromFile(join(result.output, 'release'))
  const lines = readFileSync(file, 'utf8').trimEnd().split('\n').slice(1)
  const sentences = lines.map((line) => line.split('\t')[0]!)
  return sentences.reduce((sum, sentence) => sum + tokenizer.encode(sentence).length, 0) / sentences.length
}

/**
 * 2 per weight that a token meets in the forward pass, 2 in that of gradients to the layers below, and 2 where the weight
 * itself trains; attention and adapters apart, which are a few per cent here.
 */
function flopsPerToken(output: string, { options }: PaperRow): number {
  const config = JSON.parse(readFileSync(join(output, 'release', 'config.json'), 'utf8'))
  const { hidden_size: d, intermediate_size: wide, num_hidden_layers: layers } = config
  const weights = layers * (4 * d * d + 2 * d * wide)
  if (options.trainable === 'head') return 2 * weights
  return ((options.trainable ?? 'all') === 'all' ? 6 : 4) * weights
}
