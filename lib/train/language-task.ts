import { type Example, type HuggingFaceTokenizer, splitIntoMicroBatches } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { noteBase } from '../models/adapter-base.js'
import type { GenerativeModel } from '../models/generation/generate.js'
import { readGenerationSettings } from '../models/generation/text-generator.js'
import { saveAdapters } from '../models/hugging-face/adapters.js'
import { copyIfThere } from '../models/model-folder.js'
import type { PretrainedShape } from '../models/pretrained-shape.js'
import type { MicroBatch } from '../nn/accumulate.js'
import { type Columns, columnsOf } from './columns.js'
import { evaluateLanguageModel } from './evaluate-language.js'
import { encodeCausal, encodeSeq2Seq, type LanguageData, languageBatch, requireTargets } from './language-data.js'
import { LanguageEncoder } from './language-encoder.js'
import { scoredRowsWithinBudget } from './memory.js'
import { mergeForRelease } from './merge-for-release.js'
import { openPretrainedLanguageModel, type PretrainedChoice } from './open-model.js'
import { openHuggingFaceTokenizer } from './open-tokenizer.js'
import type { EvaluationResult, TrainOptions } from './options.js'
import { readSides, unitsOf, validationSource } from './read-sides.js'
import { requireVocabulary } from './recipe.js'
import type { EncodedTask, Learner, LoadedTask, LossBatch } from './task.js'

export type LanguageTask = 'causal-lm' | 'seq2seq'

/** Texts that a language model continues (causal-lm) or answers (seq2seq). */
export async function loadLanguageTask(task: LanguageTask, options: TrainOptions): Promise<LoadedTask> {
  const columns = columnsOf(task, options)
  if (options.labels !== undefined) throw new DpMoeError('INVALID_ARGUMENT', `labels: not for ${task}`)
  if (options.model?.pretrained === undefined) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `model: ${task} starts from a pretrained model; name a folder, or owner/name on the hub`,
    )
  }
  const sides = await readSides(options, columns)
  const { training, leftOut, unitOffsets } = sides
  return {
    units: unitsOf(sides),
    examples: training.length,
    leftOut,
    classes: 0,
    encode: async (recipe, chosen, signal) => {
      const pretrained = chosen!
      const file = options.tokenizer ?? pretrained.folder
      const tokenizer = await openHuggingFaceTokenizer(file, recipe.tokenizer.maxLength)
      requireVocabulary(recipe, tokenizer)
      const encode = await exampleEncoder(task, tokenizer, pretrained)
      const data = await encode(training, { unitOffsets, signal })
      requireTargets(data, options.train!)
      const validation = sides.validation && (await encode(sides.validation, { signal }))
      if (validation) requireTargets(validation, validationSource(options))
      return encoded({ task, options, pretrained, columns, tokenizer, training: data, validation })
    },
  }
}

/** Encodes examples as the model of a folder reads them. */
export async function exampleEncoder(
  task: LanguageTask,
  tokenizer: HuggingFaceTokenizer,
  { folder, shape }: { readonly folder: string; readonly shape: PretrainedShape },
) {
  const { stopTokens } = await readGenerationSettings(folder)
  const outside = stopTokens.find((token) => token >= shape.vocabularySize)
  if (outside !== undefined) {
    const message = `eos_token_id: expected tokens below the vocabulary's ${shape.vocabularySize}, got ${outside}`
    throw new DpMoeError('MODEL_FORMAT', `${folder}: ${message}`)
  }
  const encoder = new LanguageEncoder(tokenizer, stopTokens)
  const encode = task === 'causal-lm' ? encodeCausal : encodeSeq2Seq
  return (examples: readonly Example[], options: Parameters<typeof encode>[2]) => encode(examples, encoder, options)
}

interface Encoded {
  readonly task: LanguageTask
  readonly options: TrainOptions
  readonly pretrained: PretrainedChoice
  readonly columns: Columns
  readonly tokenizer: HuggingFaceTokenizer
  readonly training: LanguageData
  readonly validation: LanguageData | undefined
}

function encoded(parts: Encoded): EncodedTask {
  const { task, options, pretrained, columns, training, tokenizer } = parts
  const learnt = task === 'seq2seq' ? 'target' : columns.target === undefined ? 'text' : 'completion'
  const { untaught, examples } = training
  return {
    training,
    tokenizer,
    publicConstants: { task, lossOver: `tokens of the ${learnt}, mean of each example` },
    warnings: untaught === 0 ? [] : [untaughtWarning(untaught, examples)],
    open: async (device) => {
      const model = await openPretrainedLanguageModel(device, { task, pretrained, options })
      return new LanguageLearner({ ...parts, device, model })
    },
  }
}

function untaughtWarning(untaught: number, examples: number): string {
  return (
    `${untaught} of ${examples} examples have no token to predict (an empty text, or a prompt that fills --max-length). ` +
    'They count as examples and teach nothing'
  )
}

interface Parts extends Encoded {
  readonly device: Device
  readonly model: GenerativeModel
}

class LanguageLearner implements Learner {
  readonly model: GenerativeModel
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.model = parts.model
    this.#parts = parts
  }

  microBatches(units: Int32Array, maxRows: number): MicroBatch<LossBatch>[] {
    const { device, training } = this.#parts
    return splitIntoMicroBatches(training.lengthsOf(units), maxRows).map(
      ({ start, end }) =>
        () =>
          languageBatch(device, this.model, training, units.subarray(start, end)),
    )
  }

  async validate(signal: AbortSignal | undefined): Promise<EvaluationResult | undefined> {
    const { device, validation, pretrained, options } = this.#parts
    if (!validation) return undefined
    const maxRows = scoredRowsWithinBudget(pretrained.shape, options.memoryBudget)
    return await evaluateLanguageModel(device, this.model, validation, { maxRows, signal })
  }

  async save(folder: string): Promise<void> {
    const { options, pretrained, tokenizer } = this.#parts
    if (options.release === 'adapters') {
      await saveAdapters(folder, this.model, pretrained, tokenizer)
      await noteBase(folder, pretrained.name)
      await mergeForRelease(this.model)
    } else {
      await mergeForRelease(this.model)
      await this.model.savePretrained(folder, { tokenizer })
    }
    await copyIfThere(pretrained.folder, folder, 'generation_config.json')
  }
}
