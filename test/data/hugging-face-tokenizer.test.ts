import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { HuggingFaceTokenizer, tokenizerFromJson } from '../../lib/data/index.js'

interface Fixture {
  vocabularySize: number
  tokenizer: Record<string, unknown>
  /** Ids with the template's special tokens, without them, and truncated to five. */
  expected: { text: string; ids: number[]; bare: number[]; truncatedTo5: number[] }[]
}

const fixture = async (name: string): Promise<Fixture> =>
  JSON.parse(await readFile(new URL(`fixtures/${name}.json`, import.meta.url), 'utf8'))

for (const name of ['word-piece', 'byte-level-bpe', 'unigram']) {
  t.test(`${name}: ids are those of the Rust library`, async (t) => {
    const { tokenizer: json, expected, vocabularySize } = await fixture(name)
    const tokenizer = new HuggingFaceTokenizer(json)
    t.equal(tokenizer.vocabularySize, vocabularySize)
    const bare = new HuggingFaceTokenizer(json, { addSpecialTokens: false })
    const short = new HuggingFaceTokenizer(json, { maxLength: 5 })
    for (const { text, ids, bare: bareIds, truncatedTo5 } of expected) {
      const shown = JSON.stringify(text.slice(0, 30))
      t.same([...tokenizer.encode(text)], ids, shown)
      t.same([...bare.encode(text)], bareIds, `${shown} without special tokens`)
      t.same([...short.encode(text)], truncatedTo5, `${shown} truncated`)
    }
    const again = tokenizerFromJson(JSON.parse(JSON.stringify(short)))
    t.same(again.encode(expected[2]!.text), short.encode(expected[2]!.text), 'the same after a round trip through JSON')
  })

  t.test(`${name}: hostile texts are read up to a bound`, async (t) => {
    const { tokenizer: json } = await fixture(name)
    const tokenizer = new HuggingFaceTokenizer(json)
    for (const text of ['a', ' ', '\u{1f600}', "'", '<', '\t\n'].map((part) => part.repeat(2 ** 20 / part.length))) {
      const ids = tokenizer.encode(text)
      t.ok(ids.length <= 256)
      t.ok(ids.every((id) => id >= 0 && id < tokenizer.vocabularySize))
    }
  })
}

t.test('a maximum length below the number of special tokens still bounds the ids', async (t) => {
  const { tokenizer: json } = await fixture('word-piece')
  t.equal(new HuggingFaceTokenizer(json, { maxLength: 1 }).encode('hello world').length, 1)
  t.throws(() => new HuggingFaceTokenizer(json, { maxLength: 0 }), { code: 'INVALID_ARGUMENT' })
})

t.test('fromFile takes a file or its folder, and tokenizer_config.json beside it', async (t) => {
  const { tokenizer: json } = await fixture('word-piece')
  const folder = t.testdir({
    'tokenizer.json': JSON.stringify(json),
    'tokenizer_config.json': '{"do_lowercase_and_remove_accent": true}',
  })
  const fromFolder = await HuggingFaceTokenizer.fromFile(folder, { maxLength: 3 })
  t.same([...fromFolder.encode('hello world')], [2, 4, 3])
  t.equal(fromFolder.toJSON().tokenizerConfig.do_lowercase_and_remove_accent, true)
  const fromFile = await HuggingFaceTokenizer.fromFile(join(folder, 'tokenizer.json'))
  t.same([...fromFile.encode('hello world')], [2, 4, 5, 3])
})

t.test('files that are no tokenizers are refused by name', async (t) => {
  const folder = t.testdir({
    'text.json': 'hello',
    'list.json': '[]',
    'empty.json': '{}',
    'kind.json': JSON.stringify({ ...(await fixture('word-piece')).tokenizer, model: { type: 'Other', vocab: {} } }),
    gone: { 'tokenizer_config.json': '{}' },
  })
  for (const name of ['text.json', 'list.json']) {
    const refused = HuggingFaceTokenizer.fromFile(join(folder, name))
    await t.rejects(refused, { code: 'MODEL_FORMAT', message: new RegExp(name) })
  }
  for (const name of ['empty.json', 'kind.json']) {
    await t.rejects(HuggingFaceTokenizer.fromFile(join(folder, name)), { code: 'MODEL_FORMAT' })
  }
  await t.rejects(HuggingFaceTokenizer.fromFile(join(folder, 'none.json')), { code: 'FILE_NOT_FOUND' })
  await t.rejects(HuggingFaceTokenizer.fromFile(join(folder, 'gone')), { code: 'FILE_NOT_FOUND' })
})

t.test('a tokenizer without an unknown token says so when a text needs it', async (t) => {
  const { tokenizer: json } = await fixture('word-piece')
  const model = json.model as { vocab: Record<string, number> }
  const { '[UNK]': _, ...vocab } = model.vocab
  const added = (json.added_tokens as { content: string }[]).filter(({ content }) => content !== '[UNK]')
  const tokenizer = new HuggingFaceTokenizer({ ...json, added_tokens: added, model: { ...model, vocab } })
  t.same([...tokenizer.encode('hello')], [2, 4, 3])
  t.throws(() => tokenizer.encode('qqq'), { code: 'MODEL_FORMAT', message: /unknown token/ })
})
