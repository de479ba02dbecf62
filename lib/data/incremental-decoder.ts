/** What turns token ids into their text. */
export interface TokenDecoder {
  decode(ids: Iterable<number>): string
}

/** What a decoder writes for the bytes of a character that is not complete. */
const INCOMPLETE = /\ufffd+$/

/**
 * The text of tokens that come one by one, in whole characters: a character of several tokens is given out with its last.
 *
 * Guarantee. The pieces together are the text of all tokens behind that of the tokens before them.
 */
export class IncrementalDecoder {
  readonly #decoder: TokenDecoder
  readonly #ids: number[]
  #text: string

  /** @param before tokens that the text goes on from: they decide whether it begins with a space */
  constructor(decoder: TokenDecoder, before: Iterable<number> = []) {
    this.#decoder = decoder
    this.#ids = Array.from(before)
    this.#text = decoder.decode(this.#ids)
  }

  /** What is complete with one more token; '' where nothing is. */
  push(id: number): string {
    this.#ids.push(id)
    return this.#piece(this.#decoder.decode(this.#ids).replace(INCOMPLETE, ''))
  }

  /** What is left at the end: a character that was never completed. */
  end(): string {
    return this.#piece(this.#decoder.decode(this.#ids))
  }

  #piece(text: string): string {
    if (text.length <= this.#text.length) return ''
    const piece = text.slice(this.#text.length)
    this.#text = text
    return piece
  }
}
