import { createHash } from 'node:crypto'
import { collectDataset, type DataSource, type Dataset, type Example } from '../data/index.js'
import { dataError } from '../data/text-blocks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { Decoder } from '../models/decoder.js'
import type { GenerativeModel } from '../models/generation/generate.js'
import { causalBatch, seq2seqBatch } from '../models/language-batch.js'
import type { ForwardContext } from '../nn/module.js'
import type { LanguageEncoder } from './language-encoder.js'
import type { LossBatch, TrainingData } from './task.js'

/**
 * Encoded examples of a language task: units by position, one sequence for each example. An example without a token to learn has
 * no rows: it is a unit (or a user's example) like any other, and teaches nothing.
 */
export class LanguageData implements TrainingData {
  /** What is read; of a causal-lm all there is, with the place of the first token to learn as label. */
  readonly inputs: Dataset
  /** What is written, of a seq2seq. */
  readonly targets: Dataset | undefined

  constructor(inputs: Dataset, targets?: Dataset) {
    this.inputs = inputs
    this.targets = targets
  }

  /** Number of units. */
  get length(): number {
    return this.inputs.length
  }

  get examples(): number {
    return this.inputs.labels.length
  }

  /** Examples without a token to learn. */
  get untaught(): number {
    const { offsets } = this.targets ?? this.inputs
    let count = 0
    for (let i = 1; i < offsets.length; i++) if (offsets[i] === offsets[i - 1]) count++
    return count
  }

  /** Rows of each of the units given, of both texts together. */
  lengthsOf(units: ArrayLike<number>): Int32Array {
    const read = this.inputs.lengthsOf(units)
    const written = this.targets?.lengthsOf(units)
    return written ? read.map((rows, index) => rows + written[index]!) : read
  }

  fingerprint(): string {
    const parts = [this.inputs.fingerprint(), this.targets?.fingerprint() ?? '']
    return createHash('sha256').update(parts.join(' ')).digest('hex')
  }
}

interface EncodeOptions {
  readonly unitOffsets?: Int32Array | undefined
  readonly signal?: AbortSignal | undefined
}

/** Encodes examples for a causal language model: the text, or with a target column a prompt and its completion. */
export async function encodeCausal(
  examples: readonly Example[],
  encoder: LanguageEncoder,
  options: EncodeOptions = {},
): Promise<LanguageData> {
  const encode = (index: number) => {
    const { text, target } = examples[index]!
    const { ids, firstTarget } = target === undefined ? encoder.whole(text) : encoder.completion(text, target)
    // The first token of a sequence has none before it that could predict it.
    const teaches = ids.length > Math.max(1, firstTarget)
    return { ids: teaches ? ids : new Int32Array(0), label: teaches ? firstTarget : 0 }
  }
  return new LanguageData(await collectDataset(examples.length, encode, given(options)))
}

/** Encodes examples for an encoder-decoder: what it reads, and what it is to write. */
export async function encodeSeq2Seq(
  examples: readonly Example[],
  encoder: LanguageEncoder,
  options: EncodeOptions = {},
): Promise<LanguageData> {
  const write = (index: number) => ({ ids: encoder.written(examples[index]!.target!), label: 0 })
  const targets = await collectDataset(examples.length, write, given(options))
  const { offsets } = targets
  const read = (index: number) => {
    const teaches = offsets[index + 1]! > offsets[index]!
    return { ids: teaches ? encoder.given(examples[index]!.text) : new Int32Array(0), label: 0 }
  }
  return new LanguageData(await collectDataset(examples.length, read, given(options)), targets)
}

function given({ unitOffsets, signal }: EncodeOptions) {
  return { ...(unitOffsets && { unitOffsets }), ...(signal && { signal }) }
}

/** @throws DpMoeError DATA_FORMAT where there is nothing to learn or to measure */
export function requireTargets(data: LanguageData, source: DataSource): void {
  if (data.untaught < data.examples) return
  throw dataError(
    source,
    undefined,
    'no example has a token to predict: its texts are empty, or its prompts alone are longer than the longest text',
  )
}

/** Units of a language task on the device. */
export interface LanguageBatch extends LossBatch {
  /** Token that each row is to predict, [rows] int32; -1: none. */
  readonly targets: Tensor
  /** Scores of every token for each row, [rows, vocabularySize]. */
  logits(context: ForwardContext): Tensor
}

/** Puts the given units on a device. */
export function languageBatch(
  device: Device,
  model: GenerativeModel,
  data: LanguageData,
  units: ArrayLike<number>,
): LanguageBatch {
  const inputs = data.inputs.batch(units)
  if (model instanceof Decoder) {
    const batch = causalBatch(device, inputs, data.inputs.labelsOf(units))
    const { layout, targets } = batch
    const run = {
      loss: (c: ForwardContext) => model.loss(batch, c),
      logits: (c: ForwardContext) => model.logits(batch, c),
    }
    return { layout, targets, ...run }
  }
  const batch = seq2seqBatch(device, inputs, data.targets!.batch(units), model.config.decoderStartToken)
  const { layout, decoder } = batch
  const run = {
    loss: (c: ForwardContext) => model.loss(batch, c),
    logits: (c: ForwardContext) => model.logits(batch, c),
  }
  return { layout, targets: decoder.targets, ...run }
}
