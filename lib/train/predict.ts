import { type DataFormat, Dataset, encodeLabels, encodeUnit, LabelSet, packBatch, readExamples } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { readModelTask } from '../models/open-model.js'
import { fromPretrained, type PretrainedClassifier } from '../models/pretrained.js'
import { encodeTexts } from './classification-task.js'
import { type ColumnOptions, columnsOf } from './columns.js'
import { classLogits, classProbabilities, evaluateClassifier, mostProbable } from './evaluate.js'
import { evaluateLanguageFolder } from './evaluate-language.js'
import { type MeasuredDataOptions, measuredData } from './hub-data.js'
import { type DeviceChoice, openDevice } from './open-device.js'
import type { EvaluationResult } from './options.js'
import { findReleaseFolder } from './run-folder.js'

/** A class and the probability of each. */
export interface Prediction {
  readonly label: string
  readonly probabilities: Readonly<Record<string, number>>
}

/** A class and the logit of each. */
export interface PredictedLogits {
  readonly label: string
  readonly logits: Readonly<Record<string, number>>
}

export interface EvaluateOptions extends DeviceChoice, ColumnOptions, MeasuredDataOptions {
  /** Default: by the file's extension. */
  format?: DataFormat
  /** Of a language model: longest text in tokens. Default: as the model's tokenizer states, which is that of its training. */
  maxLength?: number
  signal?: AbortSignal
}

/** A trained classifier, open for questions. */
export class Predictor implements Disposable {
  readonly #device: Device
  readonly #classifier: PretrainedClassifier

  private constructor(device: Device, classifier: PretrainedClassifier) {
    this.#device = device
    this.#classifier = classifier
  }

  /**
   * Opens the model of a run folder, or of a release folder.
   *
   * @throws DpMoeError FILE_NOT_FOUND, MODEL_FORMAT
   */
  static async open(path: string, options: DeviceChoice = {}): Promise<Predictor> {
    const folder = await findReleaseFolder(path)
    const device = openDevice(options)
    try {
      return new Predictor(device, await fromPretrained(device, folder))
    } catch (error) {
      device.close()
      throw error
    }
  }

  get labels(): readonly string[] {
    return this.#classifier.labels
  }

  /** The most probable class of each text and the probabilities of all, in order. */
  async predict(texts: readonly string[], signal?: AbortSignal): Promise<Prediction[]> {
    const scores = await this.#scores(texts, classProbabilities, signal)
    return scores.map(({ label, byLabel }) => ({ label, probabilities: byLabel }))
  }

  /** The most probable class of each text and the logits of all as they leave the model, in order. */
  async logits(texts: readonly string[], signal?: AbortSignal): Promise<PredictedLogits[]> {
    const scores = await this.#scores(texts, classLogits, signal)
    return scores.map(({ label, byLabel }) => ({ label, logits: byLabel }))
  }

  async #scores(
    texts: readonly string[],
    scoresOf: typeof classProbabilities,
    signal: AbortSignal | undefined,
  ): Promise<{ label: string; byLabel: Record<string, number> }[]> {
    const { model, tokenizer, bag, labels } = this.#classifier
    const units = texts.map((text, unit) => encodeUnit(text, unit, tokenizer, bag ? { bag } : {}))
    const packed = packBatch(units)
    const data = new Dataset({ ...packed, labels: new Int32Array(texts.length) })
    const all = await scoresOf(this.#device, model, data, signal)
    return texts.map((_, unit) => {
      const row = all.subarray(unit * labels.length, (unit + 1) * labels.length)
      const byLabel = Object.fromEntries(labels.map((label, index) => [label, row[index]!]))
      return { label: labels[mostProbable(row)]!, byLabel }
    })
  }

  /**
   * Accuracy and mean cross entropy on a labelled file.
   *
   * @throws DpMoeError DATA_FORMAT, naming the line of a label that the model does not know
   */
  async evaluate(options: EvaluateOptions): Promise<EvaluationResult> {
    const { format, maxLength, signal } = options
    if (maxLength !== undefined) {
      throw new DpMoeError('INVALID_ARGUMENT', "maxLength: a classifier's longest text is that of its training")
    }
    const { model, tokenizer, bag, labels } = this.#classifier
    const columns = columnsOf('classification', options)
    const { data, labelNames, split } = await measuredData(options)
    const read = { ...columns, ...(format && { format }), ...(labelNames && { labelNames }) }
    const examples = await readExamples(data, read)
    const classes = encodeLabels(examples, new LabelSet(labels), data)
    const side = { texts: examples.map((example) => example.text), classes }
    const encoded = await encodeTexts(side, tokenizer, bag, signal)
    const result = await evaluateClassifier(this.#device, model, encoded, signal)
    return { ...result, ...(split && { split }) }
  }

  /** Gives back the model's memory and threads; `using` calls it too. */
  close(): void {
    this.#device.close()
  }

  [Symbol.dispose](): void {
    this.close()
  }
}

/**
 * Opens the model of a run folder or of a model folder, measures it on a file, and closes it again: a classifier on texts with
 * labels, a language model on what it is to write.
 */
export async function evaluate(path: string, options: EvaluateOptions): Promise<EvaluationResult> {
  const folder = await findReleaseFolder(path)
  const task = await readModelTask(folder)
  if (task === 'causal-lm' || task === 'seq2seq') return await evaluateLanguageFolder(folder, task, options)
  using predictor = await Predictor.open(path, options)
  return await predictor.evaluate(options)
}

/** Opens a model, classifies texts, and closes it again. */
export async function predict(path: string, texts: readonly string[]): Promise<Prediction[]> {
  using predictor = await Predictor.open(path)
  return await predictor.predict(texts)
}
