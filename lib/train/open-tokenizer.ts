import { readFile, stat } from 'node:fs/promises'
import { HuggingFaceTokenizer, type Tokenizer, WordHashTokenizer } from '../data/index.js'
import { DpMoeError } from '../errors.js'
import { withFileErrors } from '../files.js'
import type { TokenizerChoice } from './recipe.js'

/** The tokenizer of a run: a Hugging Face file where one is named, or that of a model folder, else word hashing. */
export async function openTokenizer(choice: TokenizerChoice, file: string | undefined): Promise<Tokenizer> {
  return file === undefined ? new WordHashTokenizer(choice) : openHuggingFaceTokenizer(file, choice.maxLength)
}

/** A tokenizer.json, or that of a model folder; the longest text is stated in its configuration, and so in what is released. */
export async function openHuggingFaceTokenizer(file: string, maxLength: number): Promise<HuggingFaceTokenizer> {
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
  const tokenizerConfig = { model_max_length: maxLength }
  return new HuggingFaceTokenizer(parsed as Record<string, unknown>, { maxLength, tokenizerConfig })
}
