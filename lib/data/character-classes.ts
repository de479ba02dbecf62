/** What a character is to the word-hash tokenizer. */
export const CharacterClass = { separator: 1, word: 2, singleWord: 3, punctuation: 4, ignored: 5 } as const

export type CharacterClass = (typeof CharacterClass)[keyof typeof CharacterClass]

/** Scripts written without spaces: each character counts as a word, since runs of them are whole sentences. */
const UNSPACED =
  /[\p{Script=Han}\p{Script=Hiragana}\p{Script=Katakana}\p{Script=Thai}\p{Script=Lao}\p{Script=Khmer}\p{Script=Myanmar}]/u

const WORD = /[\p{L}\p{M}\p{N}']/u

/** Joiners, soft hyphens, byte order marks: invisible, and no reason to cut a word in two. */
const IGNORED = /\p{Cf}/u

const SEPARATOR = /[\p{Z}\p{C}]/u

/** Classes found so far, by code unit; 0 is unknown. Only the plane of 65,536 common characters is kept. */
const known = new Uint8Array(0x10000)

/** The class of a code point. Each is looked at once, whatever the text: no expression runs over user text. */
export function characterClass(codePoint: number): CharacterClass {
  if (codePoint < known.length) {
    const found = known[codePoint] as CharacterClass | 0
    if (found !== 0) return found
    const classified = classify(String.fromCharCode(codePoint))
    known[codePoint] = classified
    return classified
  }
  return classify(String.fromCodePoint(codePoint))
}

function classify(character: string): CharacterClass {
  if (UNSPACED.test(character)) return CharacterClass.singleWord
  if (WORD.test(character)) return CharacterClass.word
  if (IGNORED.test(character)) return CharacterClass.ignored
  if (SEPARATOR.test(character)) return CharacterClass.separator
  return CharacterClass.punctuation
}
