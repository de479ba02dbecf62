import { crossEntropy } from '../autograd/losses.js'
import { Tape } from '../autograd/tape.js'
import { type DataFormat, HuggingFaceTokenizer, readExamples, splitIntoMicroBatches } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { OutOfRangeError } from '../errors.js'
import type { GenerativeModel } from '../models/generation/generate.js'
import { openLanguageModel } from '../models/open-language-model.js'
import { lengthOfTokenizer } from '../models/pretrained.js'
import { readPretrainedShape } from '../models/pretrained-shape.js'
import { type ColumnOptions, columnsOf } from './columns.js'
import { mostProbable } from './evaluate.js'
import { type MeasuredDataOptions, measuredData } from './hub-data.js'
import { type LanguageData, languageBatch, requireTargets } from './language-data.js'
import { exampleEncoder, type LanguageTask } from './language-task.js'
import { scoredRowsWithinBudget } from './memory.js'
import { type DeviceChoice, openDevice } from './open-device.js'
import type { EvaluationResult } from './options.js'

/**
 * Mean loss of a token, its exponential (the perplexity) and the share of tokens that the model would have written, over all
 * tokens to predict: every token weighs the same, whichever example it is of. Computed without noise and without router
 * losses: private values where the data are.
 */
export async function evaluateLanguageModel(
  device: Device,
  model: GenerativeModel,
  data: LanguageData,
  { maxRows, signal }: { maxRows: number; signal?: AbortSignal | undefined },
): Promise<EvaluationResult> {
  const units = Int32Array.from({ length: data.length }, (_, unit) => unit)
  let loss = 0
  let correct = 0
  let tokens = 0
  for (const { start, end } of splitIntoMicroBatches(data.lengthsOf(units), maxRows)) {
    signal?.throwIfAborted()
    const [targets, losses, scores] = await Promise.all(
      device.scope(() => {
        const tape = new Tape(device)
        const batch = languageBatch(device, model, data, units.subarray(start, end))
        const logits = batch.logits({ tape, training: false })
        return [batch.targets.data(), crossEntropy(tape, logits, batch.targets).data(), logits.data()]
      }),
    )
    const vocabulary = scores!.length / Math.max(1, targets!.length)
    for (const [row, target] of targets!.entries()) {
      if (target < 0) continue
      tokens++
      loss += losses![row]!
      if (mostProbable(scores!.subarray(row * vocabulary, (row + 1) * vocabulary) as Float32Array) === target) correct++
    }
  }
  const mean = loss / tokens
  return { accuracy: correct / tokens, loss: mean, examples: data.examples, tokens, perplexity: Math.exp(mean) }
}

interface FolderOptions extends ColumnOptions, DeviceChoice, MeasuredDataOptions {
  readonly format?: DataFormat
  readonly maxLength?: number
  readonly signal?: AbortSignal
}

/** Measures the language model of a folder on a file. */
export async function evaluateLanguageFolder(
  folder: string,
  task: LanguageTask,
  options: FolderOptions,
): Promise<EvaluationResult> {
  const { format, maxLength, signal } = options
  const columns = columnsOf(task, options)
  const shape = await readPretrainedShape(folder, task)
  const longest = shape.maxPositions ?? Number.POSITIVE_INFINITY
  if (maxLength !== undefined && !(Number.isInteger(maxLength) && maxLength >= 1 && maxLength <= longest)) {
    throw new OutOfRangeError('maxLength', `an integer from 1 to ${longest}`, maxLength)
  }
  const { data: files, split } = await measuredData(options)
  const examples = await readExamples(files, { ...columns, ...(format && { format }) })
  const length = maxLength ?? (await lengthOfTokenizer(folder, shape.maxPositions ?? 512))
  const tokenizer = await HuggingFaceTokenizer.fromFile(folder, { maxLength: length })
  const encode = await exampleEncoder(task, tokenizer, { folder, shape })
  const data = await encode(examples, { signal })
  requireTargets(data, files)
  const device = openDevice(options)
  try {
    const model = await openLanguageModel(device, folder)
    const result = await evaluateLanguageModel(device, model, data, { maxRows: scoredRowsWithinBudget(shape), signal })
    return { ...result, ...(split && { split }) }
  } finally {
    device.close()
  }
}
