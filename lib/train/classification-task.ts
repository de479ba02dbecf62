import type { BagOptions } from '../data/bag.js'
import {
  type Dataset,
  encodeDataset,
  encodeLabels,
  type HuggingFaceTokenizer,
  type LabelledExample,
  LabelSet,
  labelsFound,
  requireSeveralClasses,
  type Tokenizer,
} from '../data/index.js'
import type { Device } from '../engine/device.js'
import { noteBase } from '../models/adapter-base.js'
import { saveAdapters } from '../models/hugging-face/adapters.js'
import { savePretrained } from '../models/pretrained.js'
import { classesOfReplacedHead, type PretrainedTextClassifier } from '../models/pretrained-text-classifier.js'
import type { TextClassifier } from '../models/text-classifier.js'
import type { MicroBatch } from '../nn/accumulate.js'
import { microBatches } from './batches.js'
import { columnsOf } from './columns.js'
import { evaluateClassifier } from './evaluate.js'
import { mergeForRelease } from './merge-for-release.js'
import { openClassifier, type PretrainedChoice } from './open-model.js'
import { openTokenizer } from './open-tokenizer.js'
import type { EvaluationResult, TrainOptions } from './options.js'
import { readSides, type Sides, unitsOf, validationSource } from './read-sides.js'
import { type Recipe, requireVocabulary } from './recipe.js'
import type { EncodedTask, Learner, LoadedTask, LossBatch } from './task.js'

/** Classes of a text. */
export async function loadClassification(options: TrainOptions): Promise<LoadedTask> {
  const sides = await readSides(options, columnsOf('classification', options))
  const file = sides.file as readonly LabelledExample[]
  const source = options.train!
  const labels = options.labels ? new LabelSet(options.labels) : labelsFound(file, source)
  // The whole file is held to the labels, whatever of it is trained on.
  encodeLabels(file, labels, source)
  const classes = encodeLabels(sides.training as readonly LabelledExample[], labels, source)
  requireSeveralClasses(classes, labels, source)
  const held =
    sides.validation && encodeLabels(sides.validation as readonly LabelledExample[], labels, validationSource(options))
  const { training, leftOut } = sides
  return {
    units: unitsOf(sides),
    examples: training.length,
    leftOut,
    classes: labels.size,
    encode: (recipe, pretrained, signal) =>
      encode({ options, pretrained, sides, labels, classes, held }, recipe, signal),
  }
}

interface Loaded {
  readonly options: TrainOptions
  readonly pretrained: PretrainedChoice | undefined
  readonly sides: Sides
  readonly labels: LabelSet
  /** Class index of each training example. */
  readonly classes: Int32Array
  /** The same of the validation examples. */
  readonly held: Int32Array | undefined
}

async function encode(loaded: Loaded, recipe: Recipe, signal: AbortSignal | undefined): Promise<EncodedTask> {
  const { options, pretrained, sides, labels, classes, held } = loaded
  const tokenizer = await openTokenizer(recipe.tokenizer, options.tokenizer ?? pretrained?.folder)
  requireVocabulary(recipe, tokenizer)
  const { bag } = recipe
  const textsOf = (examples: Sides['training']) => examples.map(({ text }) => text)
  const training = await encodeTexts(
    { texts: textsOf(sides.training), classes, ...(sides.unitOffsets && { unitOffsets: sides.unitOffsets }) },
    tokenizer,
    bag,
    signal,
  )
  const validation =
    held && (await encodeTexts({ texts: textsOf(sides.validation!), classes: held }, tokenizer, bag, signal))
  return {
    training,
    tokenizer,
    publicConstants: { labels: [...labels.names], labelsStated: labels.stated },
    warnings: await describeHead(pretrained, labels.names),
    open: async (device) => {
      const model = await openClassifier(device, { recipe, pretrained, labels: labels.names, options })
      return new ClassifierLearner({ ...loaded, device, model, training, validation, recipe, tokenizer })
    },
  }
}

/** That a head is replaced is said: what it was trained for is lost. */
async function describeHead(pretrained: PretrainedChoice | undefined, labels: readonly string[]): Promise<string[]> {
  const classes = pretrained && (await classesOfReplacedHead(pretrained.folder, labels))
  if (classes === undefined) return []
  return [
    `The head of ${pretrained!.name} is for ${classes} classes, the data have ${labels.length}: a new head is trained`,
  ]
}

interface Parts {
  readonly device: Device
  readonly model: TextClassifier
  readonly training: Dataset
  readonly validation: Dataset | undefined
  readonly recipe: Recipe
  readonly labels: LabelSet
  readonly tokenizer: Tokenizer
  readonly options: TrainOptions
  readonly pretrained: PretrainedChoice | undefined
}

class ClassifierLearner implements Learner {
  readonly model: TextClassifier
  readonly #parts: Parts

  constructor(parts: Parts) {
    this.model = parts.model
    this.#parts = parts
  }

  microBatches(units: Int32Array, maxRows: number): MicroBatch<LossBatch>[] {
    const { device, training: data } = this.#parts
    return microBatches(device, data, units, maxRows).map((make) => () => {
      const batch = make()
      return { layout: batch.layout, loss: (context) => this.model.loss(batch, context) }
    })
  }

  async validate(signal: AbortSignal | undefined): Promise<EvaluationResult | undefined> {
    const { device, validation } = this.#parts
    return validation && evaluateClassifier(device, this.model, validation, signal)
  }

  async save(folder: string): Promise<void> {
    const { recipe, labels, tokenizer, options, pretrained } = this.#parts
    if (options.release === 'adapters') {
      const [model, own] = [this.model as PretrainedTextClassifier, tokenizer as HuggingFaceTokenizer]
      await saveAdapters(folder, model, pretrained!, own)
      await noteBase(folder, pretrained!.name)
      return await mergeForRelease(model)
    }
    await mergeForRelease(this.model)
    const config = recipe.model.modelType === 'pretrained' ? undefined : recipe.model
    await savePretrained(folder, { model: this.model, config, labels: labels.names, tokenizer, bag: recipe.bag })
  }
}

/** Texts with their classes. */
export interface LabelledTexts {
  readonly texts: readonly string[]
  readonly classes: Int32Array
  /** First text of each unit, and the number of texts, where a unit may have several. */
  readonly unitOffsets?: Int32Array
}

/** Encodes texts as the model reads them. */
export function encodeTexts(
  { texts, classes, unitOffsets }: LabelledTexts,
  tokenizer: Tokenizer,
  bag: BagOptions | undefined,
  signal?: AbortSignal,
): Promise<Dataset> {
  const options = { ...(bag && { bag }), ...(signal && { signal }), ...(unitOffsets && { unitOffsets }) }
  return encodeDataset(texts, classes, tokenizer, options)
}
