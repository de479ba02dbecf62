import t from 'tap'
import { type Example, HuggingFaceTokenizer } from '../../lib/data/index.js'
import { encodeCausal, encodeSeq2Seq } from '../../lib/train/language-data.js'
import { LanguageEncoder } from '../../lib/train/language-encoder.js'
import { END, tinyTokenizer } from './support/language.js'

const tokenizerOf = (template: boolean, maxLength: number) =>
  new HuggingFaceTokenizer(tinyTokenizer({ template }), { maxLength })
const encoderOf = (template: boolean, maxLength = 64, ends: readonly number[] = [END]) =>
  new LanguageEncoder(tokenizerOf(template, maxLength), ends)
const plain = tokenizerOf(false, 64)
const ids = (text: string) => [...plain.encode(text)]
const list = ({ ids, firstTarget }: { ids: Int32Array; firstTarget: number }) => [[...ids], firstTarget]

t.test('a whole text ends with the end token, once', async (t) => {
  t.strictSame(list(encoderOf(false).whole('the film')), [[...ids('the film'), END], 0])
  t.strictSame(list(encoderOf(true).whole('the film')), [[...ids('the film'), END], 0], 'the template has put it there')
  t.strictSame(
    list(encoderOf(false, 64, [20, END]).whole('the film')),
    [[...ids('the film'), 20], 0],
    'the first of several',
  )
  t.strictSame(list(encoderOf(true, 64, [20, END]).whole('the film')), [[...ids('the film'), END], 0], 'any of several')
  t.strictSame(list(encoderOf(false, 64, []).whole('the film')), [ids('the film'), 0], 'no end token is known')
  t.strictSame(list(encoderOf(false).whole('')), [[], 0])
})

t.test('a prompt has the ids that generation reads, the completion follows', async (t) => {
  const encoder = encoderOf(false)
  t.strictSame(list(encoder.completion('the film', ' good')), [[...ids('the film good'), END], ids('the film').length])
  t.strictSame(list(encoder.completion('the', ' film')), [[...ids('the film'), END], 1])
  // 'world' is one token, and no longer one where it is cut in two: the prompt stays what it is alone.
  const cut = list(encoder.completion('wor', 'ld'))
  t.not(ids('world')[0], ids('wor')[0])
  t.strictSame(cut, [[...ids('wor'), ...ids('ld'), END], ids('wor').length])
  // A template that ends the prompt does so in generation, too.
  const ended = list(encoderOf(true).completion('the film', 'good'))
  t.strictSame(ended, [[...ids('the film'), END, ...ids('good'), END], ids('the film').length + 1])
  t.strictSame(list(encoder.completion('', 'hello')), [[...ids('hello'), END], 0])
  t.strictSame(list(encoder.completion('hello', '')), [[...ids('hello'), END], ids('hello').length])
})

t.test('what is longer than the longest text is cut at its end, without an end token', async (t) => {
  const text = 'the good film hello'
  t.equal(ids(text).length, 4)
  t.strictSame(list(encoderOf(false, 5).whole(text)), [[...ids(text), END], 0])
  t.strictSame(list(encoderOf(false, 4).whole(text)), [ids(text), 0])
  t.strictSame(list(encoderOf(false, 3).whole(text)), [ids(text).slice(0, 3), 0])
  t.strictSame(list(encoderOf(false, 3).completion('the good', ' film hello')), [ids(text).slice(0, 3), 2])
  t.strictSame([...encoderOf(true, 3).written(text)], [...ids(text).slice(0, 2), END], 'a template keeps its own')
})

t.test('an example without a token to learn has no rows, and its place', async (t) => {
  const examples: Example[] = [
    { text: 'the good film', target: 'hello', line: 1 },
    { text: '', target: '', line: 2 },
    { text: 'hello', target: 'the', line: 3 },
    { text: '', target: 'world', line: 4 },
  ]
  const causal = await encodeCausal(examples, encoderOf(false, 3))
  t.strictSame([...causal.lengthsOf([0, 1, 2, 3])], [0, 0, 3, 2])
  t.strictSame([causal.length, causal.examples, causal.untaught], [4, 4, 2])
  const seq2seq = await encodeSeq2Seq(examples, encoderOf(false, 3, []))
  t.strictSame([...seq2seq.lengthsOf([0, 1, 2, 3])], [4, 0, 2, 1], 'nothing to read is no reason not to write')
  t.strictSame([seq2seq.examples, seq2seq.untaught], [4, 1])
  const users = await encodeSeq2Seq(examples, encoderOf(true), { unitOffsets: Int32Array.of(0, 3, 4) })
  t.strictSame([users.length, users.examples, [...users.lengthsOf([0, 1])]], [2, 4, [12, 3]])
})

t.test('equal data have equal fingerprints, and what is learnt is part of it', async (t) => {
  const example = { text: 'the', target: ' film', line: 1 }
  const one = (await encodeCausal([example], encoderOf(false))).fingerprint()
  t.equal((await encodeCausal([{ ...example, line: 5 }], encoderOf(false))).fingerprint(), one)
  t.not((await encodeCausal([{ text: 'the film', line: 1 }], encoderOf(false))).fingerprint(), one)
  const pair = (await encodeSeq2Seq([example], encoderOf(true))).fingerprint()
  t.not((await encodeSeq2Seq([{ ...example, target: 'good' }], encoderOf(true))).fingerprint(), pair)
})

t.test('the work stops by its signal', async (t) => {
  const signal = AbortSignal.abort(new Error('enough'))
  await t.rejects(encodeCausal([{ text: 'a', line: 1 }], encoderOf(false), { signal }), { message: 'enough' })
})
