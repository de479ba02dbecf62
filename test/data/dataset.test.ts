import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { bagOf, Dataset, encodeDataset, encodeUnit, WordHashTokenizer } from '../../lib/data/index.js'

const tokenizer = new WordHashTokenizer({ vocabularySize: 1000 })
const texts = ['good good film', '', 'bad film', 'a film about a good dog']
const labels = Int32Array.of(1, 0, 0, 1)

t.test('sequences: each unit is its text, in order', async (t) => {
  const dataset = await encodeDataset(texts, labels, tokenizer)
  t.equal(dataset.length, 4)
  t.equal(dataset.weights, undefined)
  for (const [index, text] of texts.entries()) {
    t.same(dataset.unit(index), { ids: tokenizer.encode(text), unit: index })
    t.equal(dataset.rowsOf(index), text === '' ? 0 : text.split(' ').length)
  }
})

t.test('bags: distinct ids with weights', async (t) => {
  const dataset = await encodeDataset(texts, labels, tokenizer, { bag: { weighting: 'count', normalise: false } })
  t.same(dataset.lengthsOf([0, 1, 2, 3]), Int32Array.of(2, 0, 2, 5))
  t.same(dataset.unit(0), {
    ...bagOf(tokenizer.encode('good good film'), { weighting: 'count', normalise: false }),
    unit: 0,
  })
  t.same(encodeUnit(texts[3]!, 3, tokenizer, { bag: { weighting: 'count', normalise: false } }), dataset.unit(3))
})

t.test('a batch holds the units asked for, in that order', async (t) => {
  const dataset = await encodeDataset(texts, labels, tokenizer, { bag: {} })
  const batch = dataset.batch(Int32Array.of(3, 1, 0))
  t.same(batch.units, Int32Array.of(3, 1, 0))
  t.same(batch.offsets, Int32Array.of(0, 5, 5, 7))
  t.same(dataset.labelsOf(batch.units), Int32Array.of(1, 0, 1))
  t.same(dataset.batch([]).weights, new Float32Array(0), 'an empty batch of bags still has weights')
})

t.test('the fingerprint changes with anything training reads, and with nothing else', async (t) => {
  const arrays = { ids: Int32Array.of(1, 2, 3), offsets: Int32Array.of(0, 1, 3), labels: Int32Array.of(0, 1) }
  const of = (change = {}) => new Dataset({ ...arrays, ...change }).fingerprint()
  t.match(of(), /^[0-9a-f]{64}$/)
  t.equal(of({ ids: arrays.ids.slice() }), of())
  const changed = [
    of({ ids: Int32Array.of(1, 2, 4) }),
    of({ offsets: Int32Array.of(0, 2, 3) }),
    of({ labels: Int32Array.of(1, 1) }),
    of({ weights: Float32Array.of(1, 2, 3) }),
    of({ weights: Float32Array.of(1, 2, 4) }),
  ]
  t.equal(new Set([of(), ...changed]).size, 6)
})

t.test('a subset of all units in order is the same data', async (t) => {
  await t.resolves(
    fc.assert(
      fc.asyncProperty(fc.array(fc.string({ maxLength: 20 })), fc.boolean(), async (texts, isBag) => {
        const classes = Int32Array.from(texts, (text) => text.length % 3)
        const dataset = await encodeDataset(texts, classes, tokenizer, isBag ? { bag: {} } : {})
        assert.equal(dataset.subset([...texts.keys()]).fingerprint(), dataset.fingerprint())
        const backwards = [...texts.keys()].reverse()
        assert.equal(dataset.subset(backwards).subset(backwards).fingerprint(), dataset.fingerprint())
      }),
    ),
  )
})

t.test('arrays that do not fit together, and units that do not exist, are refused', async (t) => {
  const [ids, offsets] = [Int32Array.of(1), Int32Array.of(0, 1)]
  const bad = [
    { ids, offsets, labels: Int32Array.of(0, 1) },
    { ids, offsets: Int32Array.of(0, 2), labels: Int32Array.of(0) },
    { ids, offsets: Int32Array.of(1, 1), labels: Int32Array.of(0) },
    { ids, offsets, labels: Int32Array.of(0), weights: Float32Array.of(1, 2) },
  ]
  for (const arrays of bad) t.throws(() => new Dataset(arrays), { code: 'INVALID_ARGUMENT' })
  const dataset = new Dataset({ ids, offsets, labels: Int32Array.of(0) })
  for (const unit of [-1, 1, 0.5, Number.NaN]) {
    t.throws(() => dataset.batch([unit]), { code: 'INVALID_ARGUMENT' })
    t.throws(() => dataset.labelsOf([unit]), { code: 'INVALID_ARGUMENT' })
  }
})

t.test('encoding stops when its signal says so, and lets timers run', async (t) => {
  const controller = new AbortController()
  setTimeout(() => controller.abort(new Error('stopped')), 1)
  const many = Array.from({ length: 200_000 }, () => 'some words to hash '.repeat(20))
  const run = encodeDataset(many, new Int32Array(many.length), tokenizer, { signal: controller.signal })
  await t.rejects(run, { message: 'stopped' })
})

t.test('encodeDataset takes plain numbers as classes, one for each text', async (t) => {
  const tokenizer = new WordHashTokenizer({ vocabularySize: 64 })
  const dataset = await encodeDataset(['a', 'b c'], [1, 0], tokenizer)
  t.same(dataset.labels, new Int32Array([1, 0]))
  await t.rejects(encodeDataset(['a', 'b'], [1], tokenizer), /Expected 2 entries for labels, got 1/)
})
