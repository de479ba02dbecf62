/**
 * Turns a text into token ids.
 *
 * A tokenizer is public: it must not be made from the training data, since nothing accounts for what it would give away.
 */
export interface Tokenizer {
  /** Every id is an integer in [0, vocabularySize). */
  readonly vocabularySize: number
  /** Longest text that is read, in tokens; what comes after is dropped. */
  readonly maxLength: number
  /** Token ids in reading order; none for an empty text. The same text gives the same ids on every machine. */
  encode(text: string): Int32Array
  /** All that `tokenizerFromJson` needs to build the same tokenizer again, as plain JSON. */
  toJSON(): TokenizerConfig
}

/** A tokenizer as it stands in a model's config. */
export type TokenizerConfig = WordHashConfig | HuggingFaceConfig

/** {@link WordHashTokenizer} as JSON. */
export interface WordHashConfig {
  type: 'word-hash'
  vocabularySize: number
  ngrams: number
  maxLength: number
  punctuation: boolean
}

/** {@link HuggingFaceTokenizer} as JSON: the whole tokenizer.json, so that a model needs no file beside its config. */
export interface HuggingFaceConfig {
  type: 'hugging-face'
  maxLength: number
  addSpecialTokens: boolean
  tokenizer: Record<string, unknown>
  tokenizerConfig: Record<string, unknown>
}
