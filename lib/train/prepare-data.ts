import { readFile, stat } from 'node:fs/promises'
import type { BagOptions } from '../data/bag.js'
import {
  type Dataset,
  encodeDataset,
  encodeLabels,
  groupByUser,
  HuggingFaceTokenizer,
  type LabelledExample,
  LabelSet,
  labelsFound,
  readExamples,
  requireSeveralClasses,
  splitByText,
  type Tokenizer,
  WordHashTokenizer,
} from '../data/index.js'
import { DpMoeError } from '../errors.js'
import { withFileErrors } from '../files.js'
import type { TrainOptions } from './options.js'
import type { TokenizerChoice } from './recipe.js'

/** Texts with their classes. */
export interface LabelledTexts {
  readonly texts: readonly string[]
  readonly classes: Int32Array
  /** First text of each unit, and the number of texts, where a unit may have several. */
  readonly unitOffsets?: Int32Array
}

/** Texts and classes as the files have them, before they are encoded. */
export interface LoadedTexts {
  readonly labels: LabelSet
  readonly training: LabelledTexts
  readonly validation: LabelledTexts | undefined
  /** Training examples left out because their user had as many as are kept of one. */
  readonly leftOut: number
}

/** Examples kept of a user. */
export const defaultMaxExamplesPerUser = 16

/** Number of units of privacy. */
export function unitsOf({ texts, unitOffsets }: LabelledTexts): number {
  return unitOffsets === undefined ? texts.length : unitOffsets.length - 1
}

/** Reads the training and validation data; every problem with a file is one error that names it and the line. */
export async function loadTexts(options: TrainOptions): Promise<LoadedTexts> {
  const columns = { text: options.text ?? 'text', label: options.label ?? 'label' }
  const { group } = options
  const examples = await readExamples(options.train, group === undefined ? columns : { ...columns, group })
  const labels = options.labels ? new LabelSet(options.labels) : labelsFound(examples, options.train)
  const classes = encodeLabels(examples, labels, options.train)
  const everyone = Array.from(examples.keys())
  const side = (positions: ArrayLike<number>) => trainingSide(examples, classes, positions, options)
  if (typeof options.validation === 'string') {
    requireSeveralClasses(classes, labels, options.train)
    const held = await readExamples(options.validation, columns)
    const validation = sideOf(held, encodeLabels(held, labels, options.validation), held.keys())
    return { labels, ...side(everyone), validation }
  }
  if (options.validation === undefined) {
    requireSeveralClasses(classes, labels, options.train)
    return { labels, ...side(everyone), validation: undefined }
  }
  // A user is on one side with all they wrote.
  const keys = examples.map((example) => example.group ?? example.text)
  const split = splitByText(keys, options.validation)
  const made = side(split.training)
  requireSeveralClasses(made.training.classes, labels, options.train)
  return { labels, ...made, validation: sideOf(examples, classes, split.validation) }
}

/** The training examples at the positions given, those of a user together and not too many. */
function trainingSide(
  examples: readonly LabelledExample[],
  classes: Int32Array,
  positions: ArrayLike<number>,
  { group, maxExamplesPerUser = defaultMaxExamplesPerUser }: TrainOptions,
): Pick<LoadedTexts, 'training' | 'leftOut'> {
  const kept = Array.from(positions)
  if (group === undefined) return { training: sideOf(examples, classes, kept), leftOut: 0 }
  const users = kept.map((position) => examples[position]!.group!)
  const { order, unitOffsets, leftOut } = groupByUser(users, maxExamplesPerUser)
  const ordered = Array.from(order, (place) => kept[place]!)
  return { training: { ...sideOf(examples, classes, ordered), unitOffsets }, leftOut }
}

/** The tokenizer of a run: a Hugging Face file where one is named, or that of a model folder, else word hashing. */
export async function openTokenizer(choice: TokenizerChoice, file: string | undefined): Promise<Tokenizer> {
  if (file === undefined) return new WordHashTokenizer(choice)
  const { maxLength } = choice
  if ((await stat(file).catch(() => undefined))?.isDirectory()) {
    const { tokenizerConfig, tokenizer } = (await HuggingFaceTokenizer.fromFile(file, { maxLength })).toJSON()
    const stated = { ...tokenizerConfig, model_max_length: maxLength }
    return new HuggingFaceTokenizer(tokenizer, { maxLength, tokenizerConfig: stated })
  }
  const text = await withFileErrors('read', file, () => readFile(file, 'utf8'))
  let parsed: unknown
  try {
    parsed = JSON.parse(text)
  } catch (error) {
    throw new DpMoeError('DATA_FORMAT', `${file} is not JSON; name a Hugging Face tokenizer.json`, { cause: error })
  }
  return new HuggingFaceTokenizer(parsed as Record<string, unknown>, { maxLength: choice.maxLength })
}

/** Encodes texts as the model reads them. */
export function encodeTexts(
  side: LabelledTexts,
  tokenizer: Tokenizer,
  bag: BagOptions | undefined,
  signal?: AbortSignal,
): Promise<Dataset> {
  const { texts, classes, unitOffsets } = side
  const options = { ...(bag && { bag }), ...(signal && { signal }), ...(unitOffsets && { unitOffsets }) }
  return encodeDataset(texts, classes, tokenizer, options)
}

function sideOf(examples: readonly LabelledExample[], classes: Int32Array, positions: Iterable<number>): LabelledTexts {
  const kept = [...positions]
  return {
    texts: kept.map((position) => examples[position]!.text),
    classes: Int32Array.from(kept, (position) => classes[position]!),
  }
}
