import { readFile } from 'node:fs/promises'
import type { BagOptions } from '../data/bag.js'
import {
  type Dataset,
  encodeDataset,
  encodeLabels,
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

/** Texts and classes as the files have them, before they are encoded. */
export interface LoadedTexts {
  readonly labels: LabelSet
  readonly training: { readonly texts: readonly string[]; readonly classes: Int32Array }
  readonly validation: { readonly texts: readonly string[]; readonly classes: Int32Array } | undefined
}

/** Reads the training and validation data; every problem with a file is one error that names it and the line. */
export async function loadTexts(options: TrainOptions): Promise<LoadedTexts> {
  const columns = { text: options.text ?? 'text', label: options.label ?? 'label' }
  const examples = await readExamples(options.train, columns)
  const labels = options.labels ? new LabelSet(options.labels) : labelsFound(examples, options.train)
  const classes = encodeLabels(examples, labels, options.train)
  const whole = sideOf(examples, classes)
  if (typeof options.validation === 'string') {
    requireSeveralClasses(classes, labels, options.train)
    const held = await readExamples(options.validation, columns)
    return { labels, training: whole, validation: sideOf(held, encodeLabels(held, labels, options.validation)) }
  }
  if (options.validation === undefined) {
    requireSeveralClasses(classes, labels, options.train)
    return { labels, training: whole, validation: undefined }
  }
  const split = splitByText(whole.texts, options.validation)
  const pick = (positions: Int32Array) => ({
    texts: Array.from(positions, (position) => whole.texts[position]!),
    classes: positions.map((position) => whole.classes[position]!),
  })
  const training = pick(split.training)
  requireSeveralClasses(training.classes, labels, options.train)
  return { labels, training, validation: pick(split.validation) }
}

/** The tokenizer of a run: a Hugging Face file where one is named, else word hashing. */
export async function openTokenizer(choice: TokenizerChoice, file: string | undefined): Promise<Tokenizer> {
  if (file === undefined) return new WordHashTokenizer(choice)
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
  side: { readonly texts: readonly string[]; readonly classes: Int32Array },
  tokenizer: Tokenizer,
  bag: BagOptions | undefined,
  signal?: AbortSignal,
): Promise<Dataset> {
  return encodeDataset(side.texts, side.classes, tokenizer, { ...(bag && { bag }), ...(signal && { signal }) })
}

function sideOf(examples: readonly LabelledExample[], classes: Int32Array) {
  return { texts: examples.map(({ text }) => text), classes }
}
