import { CharacterClass, characterClass } from './character-classes.js'
import { requireInteger } from './checks.js'
import { GrowingArray } from './growing-array.js'
import { FNV_OFFSET, FNV_PRIME, mixBits } from './hash.js'

import type { Tokenizer, WordHashConfig } from './tokenizer.js'

const MAX_NGRAMS = 8

/** Above this many ids a modulo of a 32-bit hash is no longer even. */
const MAX_VOCABULARY = 2 ** 26

const APOSTROPHE = 0x27
const TYPOGRAPHIC_APOSTROPHE = 0x2019

export interface WordHashOptions {
  /** Number of ids; default 32,768. */
  vocabularySize?: number
  /** Longest run of words that gets an id of its own; default 1 (words only), 2 adds pairs of neighbours. */
  ngrams?: number
  /** Words read from a text; default 256. A text gives at most maxLength * ngrams ids. */
  maxLength?: number
  /** Whether every punctuation mark and symbol counts as a word; default false (they only separate words). */
  punctuation?: boolean
}

/**
 * Hashes words into a fixed number of ids: public by construction, since it has no vocabulary to learn.
 *
 * A text is normalised (Unicode NFKC), lower-cased and cut into words: runs of letters, marks, digits and apostrophes
 * (invisible joiners are skipped);
 * in scripts written without spaces each character is a word. The id of a word or n-gram is
 * `fmix32(FNV-1a 32(UTF-8 bytes)) mod vocabularySize`, the words of an n-gram joined by one space. Ids come in reading
 * order; those that end at the same word come shortest first.
 *
 * Time is linear in the text's length, whatever it holds.
 */
export class WordHashTokenizer implements Tokenizer {
  readonly vocabularySize: number
  readonly ngrams: number
  readonly maxLength: number
  readonly punctuation: boolean
  readonly #ids = new GrowingArray<Int32Array>((length) => new Int32Array(length))

  /** @throws OutOfRangeError for an option that is not an integer in its range */
  constructor(options: WordHashOptions = {}) {
    this.vocabularySize = options.vocabularySize ?? 32_768
    this.ngrams = options.ngrams ?? 1
    this.maxLength = options.maxLength ?? 256
    this.punctuation = options.punctuation ?? false
    requireInteger('vocabularySize', this.vocabularySize, 1, MAX_VOCABULARY)
    requireInteger('ngrams', this.ngrams, 1, MAX_NGRAMS)
    requireInteger('maxLength', this.maxLength, 1, 2 ** 27)
  }

  encode(text: string): Int32Array {
    const normal = text.normalize('NFKC').toLowerCase()
    const words = new WordHasher(this, this.#ids)
    this.#ids.clear()
    for (let at = 0; at < normal.length && words.count < this.maxLength; at++) {
      const codePoint = normal.codePointAt(at)!
      if (codePoint > 0xffff) at++
      const found = characterClass(codePoint)
      if (found === CharacterClass.word) words.add(codePoint)
      else if (codePoint === TYPOGRAPHIC_APOSTROPHE) words.add(APOSTROPHE)
      else if (found !== CharacterClass.ignored) {
        words.end()
        if (found === CharacterClass.singleWord || (this.punctuation && found === CharacterClass.punctuation)) {
          if (words.count === this.maxLength) break
          words.add(codePoint)
          words.end()
        }
      }
    }
    words.end()
    return this.#ids.toArray()
  }

  toJSON(): WordHashConfig {
    const { vocabularySize, ngrams, maxLength, punctuation } = this
    return { type: 'word-hash', vocabularySize, ngrams, maxLength, punctuation }
  }
}

/** Hashes the word being read, and every n-gram that will end with it, in one pass over its characters. */
class WordHasher {
  /** Words ended so far. */
  count = 0
  #open = false
  /** hashes[k]: the n-gram of k + 1 words that ends with the word being read. */
  readonly #hashes: Int32Array
  readonly #vocabularySize: number
  readonly #ids: GrowingArray<Int32Array>

  constructor(options: { ngrams: number; vocabularySize: number }, ids: GrowingArray<Int32Array>) {
    this.#hashes = new Int32Array(options.ngrams)
    this.#vocabularySize = options.vocabularySize
    this.#ids = ids
  }

  /** Appends a character to the word being read, in UTF-8. */
  add(codePoint: number): void {
    if (!this.#open) this.#begin()
    if (codePoint < 0x80) this.#addByte(codePoint)
    else if (codePoint < 0x800) {
      this.#addByte(0xc0 | (codePoint >> 6))
      this.#addByte(0x80 | (codePoint & 0x3f))
    } else {
      if (codePoint < 0x10000) this.#addByte(0xe0 | (codePoint >> 12))
      else {
        this.#addByte(0xf0 | (codePoint >> 18))
        this.#addByte(0x80 | ((codePoint >> 12) & 0x3f))
      }
      this.#addByte(0x80 | ((codePoint >> 6) & 0x3f))
      this.#addByte(0x80 | (codePoint & 0x3f))
    }
  }

  /** Emits the ids that end with the word being read, if there is one. */
  end(): void {
    if (!this.#open) return
    this.#open = false
    this.count++
    const longest = Math.min(this.count, this.#hashes.length)
    for (let k = 0; k < longest; k++) this.#ids.push(mixBits(this.#hashes[k]!) % this.#vocabularySize)
  }

  #begin(): void {
    this.#open = true
    const hashes = this.#hashes
    for (let k = hashes.length - 1; k > 0; k--) hashes[k] = Math.imul(hashes[k - 1]! ^ 0x20, FNV_PRIME)
    hashes[0] = FNV_OFFSET
  }

  #addByte(byte: number): void {
    const hashes = this.#hashes
    for (let k = 0; k < hashes.length; k++) hashes[k] = Math.imul(hashes[k]! ^ byte, FNV_PRIME)
  }
}
