import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { data } from '../../lib/index.js'
import { readSentences } from './held-out.js'
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
  /** The released model's folder. */
  readonly release: string
  readonly steps: number
  readonly time: StepTime
  /** GFLOP/s of a large matrix product. */
  readonly speed: number
}

const THREADS = 2

/** Tokens a second, and how far from the limit that the machine's matrix products set. */
export async function costOf(measured: Measured): Promise<Cost> {
  const { row, release, steps, time, speed } = measured
  const tokens = steps * row.options.expectedBatchSize! * (await meanTokens(measured))
  const gigaflops = (tokens * flopsPerToken(release, row)) / 1e9
  return {
    ...time,
    tokensPerSecond: tokens / time.seconds,
    ofFlopLimit: time.processorSeconds / THREADS / (gigaflops / speed),
  }
}

async function meanTokens({ release, file }: Measured): Promise<number> {
  const tokenizer = await data.HuggingFaceTokenizer.fromFile(release)
  const sentences = readSentences(file)
  return sentences.reduce((sum, { text }) => sum + tokenizer.encode(text).length, 0) / sentences.length
}

/**
 * 2 per weight that a token meets in the forward pass, 2 where it hands a gradient to something trained below, and 2 where the
 * weight itself trains; the products of attention and adapters apart, which are a few per cent here. In the lowest layer with
 * adapters, query, key and value hand nothing down.
 */
function flopsPerToken(release: string, { options }: PaperRow): number {
  const config = JSON.parse(readFileSync(join(release, 'config.json'), 'utf8'))
  const { hidden_size: d, intermediate_size: wide, num_hidden_layers: layers } = config
  const ofLayer = 4 * d * d + 2 * d * wide
  const weights = layers * ofLayer
  if (options.trainable === 'all') return 6 * weights
  if (options.trainable === 'bias') return 4 * weights
  const lowest = Math.min(...(options.loraLayers ?? [0]))
  return 2 * weights + 2 * ((layers - lowest) * ofLayer - 3 * d * d)
}
