import { HuggingFaceTokenizer } from '../data/index.js'

/** A sequence for a causal language model. */
export interface CausalSequence {
  readonly ids: Int32Array
  /** The place of the first token to learn: what is before it is given. */
  readonly firstTarget: number
}

/**
 * Turns the texts of an example into token ids. Each result follows from its own texts alone.
 *
 * A text to learn ends with the token that ends texts, so that a model learns to stop, unless the tokenizer's template put it
 * there or the text was cut.
 */
export class LanguageEncoder {
  readonly #tokenizer: HuggingFaceTokenizer
  /** The same without the special tokens of its template. */
  readonly #bare: HuggingFaceTokenizer
  readonly #endTokens: readonly number[]

  /** `endTokens`: those that end a text; the first is what is written. */
  constructor(tokenizer: HuggingFaceTokenizer, endTokens: readonly number[]) {
    const { tokenizer: json, tokenizerConfig, maxLength } = tokenizer.toJSON()
    this.#tokenizer = tokenizer
    this.#bare = new HuggingFaceTokenizer(json, { maxLength, tokenizerConfig, addSpecialTokens: false })
    this.#endTokens = endTokens
  }

  /** A text to read, at most `maxLength` tokens. */
  given(text: string): Int32Array {
    return this.#tokenizer.encode(text)
  }

  /** A text to write, at most `maxLength` tokens. */
  written(text: string): Int32Array {
    return this.#ended(this.#tokenizer.encode(text))
  }

  /** A text of which all is learnt: every token but the first, which has none before it. An empty text is nothing to learn. */
  whole(text: string): CausalSequence {
    if (text === '') return { ids: new Int32Array(0), firstTarget: 0 }
    return { ids: this.written(text), firstTarget: 0 }
  }

  /**
   * A prompt and what comes after it, of which the latter is learnt; at most `maxLength` tokens together, cut at the end.
   *
   * The prompt has the ids that it has alone, which is how generation reads it. The rest are those of both texts as one, where
   * these begin so, else those of the completion.
   */
  completion(prompt: string, completion: string): CausalSequence {
    const before = this.#tokenizer.encode(prompt)
    const both = this.#tokenizer.encode(prompt + completion)
    const isPrefix = before.every((id, place) => id === both[place])
    const ids = isPrefix ? both : joined(before, this.#bare.encode(completion))
    return { ids: this.#ended(ids), firstTarget: before.length }
  }

  #ended(ids: Int32Array): Int32Array {
    const { maxLength } = this.#tokenizer
    const [end] = this.#endTokens
    const last = ids.at(-1)
    if (end === undefined || ids.length >= maxLength || (last !== undefined && this.#endTokens.includes(last))) {
      return ids.subarray(0, maxLength)
    }
    return joined(ids, Int32Array.of(end))
  }
}

function joined(a: Int32Array, b: Int32Array): Int32Array {
  const both = new Int32Array(a.length + b.length)
  both.set(a)
  both.set(b, a.length)
  return both
}
