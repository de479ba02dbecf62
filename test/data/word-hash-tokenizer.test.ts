import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { fnv1a, mixBits, tokenizerFromJson, WordHashTokenizer } from '../../lib/data/index.js'

const SIZE = 2 ** 20

/** The documented id of a word or n-gram, computed the plain way. */
const id = (gram: string, size = SIZE) => mixBits(fnv1a(new TextEncoder().encode(gram))) % size

const encode = (text: string, options = {}) => [
  ...new WordHashTokenizer({ vocabularySize: SIZE, ...options }).encode(text),
]

t.test('a text is cut into words as documented', async (t) => {
  const table: [string, string[]][] = [
    ['', []],
    ['  \t\n', []],
    ['...!?', []],
    ["It's  a MAD, mad world", ["it's", 'a', 'mad', 'mad', 'world']],
    ['don\u2019t', ["don't"]],
    ['caf\u00e9 cafe\u0301', ['caf\u00e9', 'caf\u00e9']],
    ['\uff26\uff32\uff25\uff25 \u24d5\u24e1\u24d4\u24d4 \ufb01ne', ['free', 'free', 'fine']],
    ['fr\u200bee co\u00adop', ['free', 'coop']],
    ['\u0391\u03a3 \u0421\u041f\u0410\u041c', ['\u03b1\u03c2', '\u0441\u043f\u0430\u043c']],
    ['\u4f60\u597dab', ['\u4f60', '\u597d', 'ab']],
    ['1,000 x2', ['1', '000', 'x2']],
    ['\ud83d\ude00 \ud835\udc9c\ud801\udc28', ['a\ud801\udc28']],
    ['a\u0000b \ud800c', ['a', 'b', 'c']],
  ]
  for (const [text, words] of table)
    t.same(
      encode(text),
      words.map((word) => id(word)),
      JSON.stringify(text),
    )
})

t.test('punctuation counts as words when asked', async (t) => {
  t.same(
    encode('Buy now!! \ud83d\ude00', { punctuation: true }),
    ['buy', 'now', '!', '!', '\ud83d\ude00'].map((w) => id(w)),
  )
})

t.test('n-grams follow the word they end with, shortest first', async (t) => {
  const grams = ['a', 'b', 'a b', 'c', 'b c', 'a b c', 'd', 'c d', 'b c d']
  t.same(
    encode('a b c d', { ngrams: 3 }),
    grams.map((gram) => id(gram)),
  )
  t.same(encode('a', { ngrams: 3 }), [id('a')])
})

t.test('maxLength counts words, and a word at the limit is whole', async (t) => {
  t.same(encode('one two three', { maxLength: 2 }), [id('one'), id('two')])
  t.same(encode('one two', { maxLength: 2 }), [id('one'), id('two')])
  t.same(encode('\u4f60\u597d\u4f60', { maxLength: 2 }), [id('\u4f60'), id('\u597d')])
  t.equal(encode('a b c d', { maxLength: 3, ngrams: 2 }).length, 5)
})

t.test('ids equal those of words split and joined the plain way', async (t) => {
  const word = fc.stringMatching(/^[a-z\u00e9\u0431\u{10428}0-9']{1,6}$/u)
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(
        fc.array(word, { maxLength: 12 }),
        fc.integer({ min: 1, max: 4 }),
        fc.integer({ min: 1, max: 999 }),
        (words, ngrams, size) => {
          const expected = words.flatMap((_, end) =>
            Array.from({ length: Math.min(ngrams, end + 1) }, (_, k) =>
              id(words.slice(end - k, end + 1).join(' '), size),
            ),
          )
          assert.deepEqual(encode(words.join(', '), { ngrams, vocabularySize: size }), expected)
        },
      ),
      { numRuns: 200 },
    ),
  )
})

t.test('any text gives ids in range, the same each time and after a round trip through JSON', async (t) => {
  const options = fc.record({
    vocabularySize: fc.integer({ min: 1, max: 2 ** 26 }),
    ngrams: fc.integer({ min: 1, max: 8 }),
    maxLength: fc.integer({ min: 1, max: 20 }),
    punctuation: fc.boolean(),
  })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(fc.string({ unit: 'binary', maxLength: 60 }), options, (text, options) => {
        const tokenizer = new WordHashTokenizer(options)
        const ids = tokenizer.encode(text)
        assert.ok(ids.every((id) => id >= 0 && id < options.vocabularySize))
        assert.ok(ids.length <= options.maxLength * options.ngrams)
        const again = tokenizerFromJson(JSON.parse(JSON.stringify(tokenizer)))
        assert.deepEqual(again.encode(text), ids)
        assert.equal(again.vocabularySize, tokenizer.vocabularySize)
      }),
      { numRuns: 200 },
    ),
  )
})

t.test('a megabyte without spaces is one word', async (t) => {
  const text = 'a'.repeat(2 ** 20)
  t.same(encode(text), [id(text)])
  t.equal(encode('\u4e2d'.repeat(2 ** 20), { maxLength: 2 ** 20 }).length, 2 ** 20)
})

t.test('options outside their range are refused', async (t) => {
  for (const options of [
    { vocabularySize: 0 },
    { vocabularySize: 1.5 },
    { ngrams: 0 },
    { ngrams: 9 },
    { maxLength: 0 },
  ]) {
    t.throws(() => new WordHashTokenizer(options), { code: 'INVALID_ARGUMENT' })
  }
  t.throws(() => tokenizerFromJson({ type: 'other' } as never), { code: 'MODEL_FORMAT' })
})
