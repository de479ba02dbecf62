import { readFile, stat } from 'node:fs/promises'
import { dirname, join } from 'node:path'
import { Tokenizer as HuggingFaceLibraryTokenizer } from '@huggingface/tokenizers'
import { DpMoeError, invalid } from '../errors.js'
import { fileError } from '../files.js'
import { requireInteger } from './checks.js'
import type { HuggingFaceConfig, Tokenizer } from './tokenizer.js'

/**
 * Characters read for each token that may be kept: far more than texts need, and a bound on the time a hostile text
 * takes, since the library's own time is not linear in every case.
 */
const CHARACTERS_PER_TOKEN = 32

/** The library takes other types for one of these, and gives wrong ids. */
const MODEL_TYPES = ['WordPiece', 'BPE', 'Unigram']

type JsonObject = Record<string, unknown>

export interface HuggingFaceOptions {
  /** Longest sequence in tokens, special tokens included; default 256. */
  maxLength?: number
  /** Whether the tokenizer's own template ([CLS] ... [SEP]) is applied; default true. */
  addSpecialTokens?: boolean
  /** The content of tokenizer_config.json, where there is one. */
  tokenizerConfig?: Record<string, unknown>
}

/**
 * A tokenizer from a Hugging Face tokenizer.json (WordPiece, BPE, Unigram).
 *
 * Public only if the file is: a vocabulary made from the training data gives away parts of it, and no accounting sees
 * that. Never pads; the file's own truncation and padding settings are not used. A text longer than maxLength keeps its
 * first tokens and the template's special tokens; at most 32 * maxLength UTF-16 code units of it are read.
 */
export class HuggingFaceTokenizer implements Tokenizer {
  readonly vocabularySize: number
  readonly maxLength: number
  readonly addSpecialTokens: boolean
  readonly #tokenizer: HuggingFaceLibraryTokenizer
  readonly #json: JsonObject
  readonly #config: JsonObject

  /**
   * @param json the content of a tokenizer.json
   * @throws DpMoeError with code MODEL_FORMAT for content that is no tokenizer or of a kind that is not supported
   */
  constructor(json: JsonObject, options: HuggingFaceOptions = {}) {
    this.maxLength = options.maxLength ?? 256
    requireInteger('maxLength', this.maxLength, 1, 2 ** 27)
    this.addSpecialTokens = options.addSpecialTokens ?? true
    this.#json = json
    this.#config = options.tokenizerConfig ?? {}
    const { type } = (json.model ?? {}) as JsonObject
    if (type !== undefined && !MODEL_TYPES.includes(type as string)) {
      throw formatError('tokenizer.json', invalid('its model type', MODEL_TYPES.join(', '), type))
    }
    try {
      this.#tokenizer = new HuggingFaceLibraryTokenizer({ added_tokens: [], ...json }, this.#config)
      this.vocabularySize = 1 + [...this.#tokenizer.get_vocab().values()].reduce((a, b) => Math.max(a, b), -1)
    } catch (error) {
      throw formatError('tokenizer.json', (error as Error).message, error)
    }
    if (this.vocabularySize === 0) throw formatError('tokenizer.json', 'its vocabulary is empty')
  }

  /**
   * Reads a tokenizer.json, or the one in a folder, with the tokenizer_config.json beside it if there is one.
   *
   * @throws DpMoeError with code FILE_NOT_FOUND, FILE_ACCESS or MODEL_FORMAT
   */
  static async fromFile(path: string, options: HuggingFaceOptions = {}): Promise<HuggingFaceTokenizer> {
    const isFolder = await stat(path).then(
      (found) => found.isDirectory(),
      () => false,
    )
    const file = isFolder ? join(path, 'tokenizer.json') : path
    const json = await readJsonObject(file)
    const tokenizerConfig =
      options.tokenizerConfig ?? (await readJsonObject(join(dirname(file), 'tokenizer_config.json'), true))
    return new HuggingFaceTokenizer(json, { ...options, tokenizerConfig })
  }

  encode(text: string): Int32Array {
    const read = prefix(text, CHARACTERS_PER_TOKEN * this.maxLength)
    const ids = this.#encode(read, this.addSpecialTokens)
    return Int32Array.from(ids.length <= this.maxLength ? ids : this.#truncate(ids, read))
  }

  /**
   * The text of token ids. Special tokens are left out, and so are ids outside the vocabulary: models have rows for more.
   * `clean_up_tokenization_spaces` of the config is not applied: what is given back is what the tokens say.
   */
  decode(ids: Iterable<number>): string {
    const known = Array.from(ids).filter((id) => this.#tokenizer.id_to_token(id) !== undefined)
    if (known.length === 0) return ''
    return this.#tokenizer.decode(known, { skip_special_tokens: true, clean_up_tokenization_spaces: false })
  }

  toJSON(): HuggingFaceConfig {
    const { maxLength, addSpecialTokens } = this
    return {
      type: 'hugging-face',
      maxLength,
      addSpecialTokens,
      tokenizer: this.#json,
      tokenizerConfig: this.#config,
    }
  }

  /** Drops the text's last tokens; the template's special tokens before and after them stay. */
  #truncate(ids: number[], text: string): number[] {
    const body = this.addSpecialTokens ? this.#encode(text, false) : ids
    const special = ids.length - body.length
    const before = Array.from({ length: special + 1 }, (_, at) => at).find((at) =>
      body.every((id, index) => ids[at + index] === id),
    )
    if (special >= this.maxLength || before === undefined) return ids.slice(0, this.maxLength)
    const after = special - before
    return [...ids.slice(0, this.maxLength - after), ...ids.slice(ids.length - after)]
  }

  #encode(text: string, addSpecialTokens: boolean): number[] {
    let ids: (number | undefined)[]
    try {
      ids = this.#tokenizer.encode(text, { add_special_tokens: addSpecialTokens }).ids
    } catch (error) {
      const message = `the text of ${text.length} characters could not be tokenised (${(error as Error).message})`
      throw formatError('tokenizer.json', `${message}. Use a smaller maximum length`, error)
    }
    if (!ids.every((id) => Number.isInteger(id))) {
      throw formatError('tokenizer.json', 'a text holds what its vocabulary lacks, and it has no unknown token')
    }
    return ids as number[]
  }
}

/** The first `length` UTF-16 code units, less one where that would cut a character in two. */
function prefix(text: string, length: number): string {
  if (text.length <= length) return text
  const isHighSurrogate = (text.charCodeAt(length - 1) & 0xfc00) === 0xd800
  return text.slice(0, isHighSurrogate ? length - 1 : length)
}

async function readJsonObject(path: string, optional = false): Promise<JsonObject> {
  let content: string
  try {
    content = await readFile(path, 'utf8')
  } catch (error) {
    const mapped = fileError(error, 'read', path)
    if (optional && mapped instanceof DpMoeError && mapped.code === 'FILE_NOT_FOUND') return {}
    throw mapped
  }
  try {
    const value: unknown = JSON.parse(content)
    if (typeof value === 'object' && value !== null && !Array.isArray(value)) return value as JsonObject
  } catch (error) {
    throw formatError(path, 'it is not JSON', error)
  }
  throw formatError(path, 'it is not a JSON object')
}

function formatError(file: string, message: string, cause?: unknown): DpMoeError {
  return new DpMoeError('MODEL_FORMAT', `Cannot use ${file} as a tokenizer: ${message}`, { cause })
}
