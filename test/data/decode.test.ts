import { readFile } from 'node:fs/promises'
import * as fc from 'fast-check'
import t from 'tap'
import { HuggingFaceTokenizer, IncrementalDecoder } from '../../lib/data/index.js'

async function tokenizerOf(name: string): Promise<HuggingFaceTokenizer> {
  const text = await readFile(new URL(`fixtures/${name}.json`, import.meta.url), 'utf8')
  return new HuggingFaceTokenizer((JSON.parse(text) as { tokenizer: Record<string, unknown> }).tokenizer)
}

const wordPiece = await tokenizerOf('word-piece')
const bytes = await tokenizerOf('byte-level-bpe')
const unigram = await tokenizerOf('unigram')
const tokenizers = { wordPiece, bytes, unigram }

/** The pieces that a decoder gives out, and what it has left at the end. */
function streamed(tokenizer: HuggingFaceTokenizer, ids: Iterable<number>, before: Iterable<number> = []): string[] {
  const decoder = new IncrementalDecoder(tokenizer, before)
  return [...Array.from(ids, (id) => decoder.push(id)), decoder.end()]
}

t.test('decode gives the text back, without special tokens', async (t) => {
  t.equal(wordPiece.decode(wordPiece.encode('The theatre is good, is it?')), 'the theatre is good, is it?')
  t.equal(unigram.decode(unigram.encode('the theatre  is good')), 'the theatre  is good')
  const text = 'Hello  world , \u{1f600} né \u4f60\u597d\n'
  t.equal(bytes.decode(bytes.encode(text)), text)
  fc.assert(fc.property(fc.string({ unit: 'grapheme' }), (text) => bytes.decode(bytes.encode(text)) === text))
  for (const tokenizer of [wordPiece, bytes, unigram]) {
    t.equal(tokenizer.decode([]), '')
    const ids = [...tokenizer.encode('hello')]
    const outside = [tokenizer.vocabularySize, 1_000_000, -1]
    t.equal(tokenizer.decode([...outside, ...ids, ...outside]), 'hello', 'ids outside the vocabulary have no text')
    t.equal(tokenizer.decode(outside), '')
  }
})

t.test('a stream gives out whole characters as soon as they are complete', async (t) => {
  const text = 'a\u{1f600}\u4f60b'
  const pieces = streamed(bytes, bytes.encode(text))
  t.same(
    pieces.filter((piece) => piece !== ''),
    ['a', '\u{1f600}', '\u4f60', 'b'],
  )
  t.equal(pieces.length, 10, 'a token for each byte, and the end')
  const cut = [...bytes.encode('a\u{1f600}')].slice(0, -1)
  t.same(streamed(bytes, cut), ['a', '', '', '', '\ufffd'], 'a character that is never completed comes at the end')
  const replacement = streamed(bytes, bytes.encode('a\ufffdb'))
  t.equal(replacement.join(''), 'a\ufffdb', 'a replacement character that the text holds')
})

t.test('the pieces of any tokens are the text of all of them', async (t) => {
  for (const [name, tokenizer] of Object.entries(tokenizers)) {
    const ids = fc.array(fc.nat({ max: tokenizer.vocabularySize + 2 }), { maxLength: 40 })
    t.doesNotThrow(
      () => fc.assert(fc.property(ids, (ids) => streamed(tokenizer, ids).join('') === tokenizer.decode(ids))),
      name,
    )
  }
})

t.test('a continuation begins with its space', async (t) => {
  for (const [name, tokenizer] of Object.entries(tokenizers)) {
    const ids = [
      ...new HuggingFaceTokenizer(tokenizer.toJSON().tokenizer, { addSpecialTokens: false }).encode('hello film'),
    ]
    const at = ids.findIndex((_, index) => tokenizer.decode(ids.slice(0, index + 1)) === 'hello') + 1
    t.ok(at > 0, name)
    t.equal(streamed(tokenizer, ids.slice(at), ids.slice(0, at)).join(''), ' film', name)
  }
})
