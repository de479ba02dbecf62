import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import * as fc from 'fast-check'
import t from 'tap'
import { splitByText } from '../../lib/data/index.js'

const texts = Array.from({ length: 5000 }, (_, index) => `text ${index}`)

t.test('the rule is the documented one', async (t) => {
  const split = splitByText(texts, 0.2)
  const isValidation = (text: string) => {
    const digest = createHash('sha256').update(text).digest('hex')
    return Number.parseInt(digest.slice(0, 8), 16) / 2 ** 32 >= 0.8
  }
  t.same(
    [...split.validation],
    [...texts.keys()].filter((index) => isValidation(texts[index]!)),
  )
  t.ok(Math.abs(split.validation.length - 1000) < 100, `${split.validation.length} of 5,000`)
})

t.test('every example is on exactly one side, and its side depends on its text alone', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(
        fc.array(fc.string(), { maxLength: 30 }),
        fc.double({ min: 0.05, max: 0.95, noNaN: true }),
        (more, fraction) => {
          const all = [...texts.slice(0, 200), ...more]
          const split = splitByText(all, fraction)
          assert.deepEqual(
            [...split.training, ...split.validation].sort((a, b) => a - b),
            [...all.keys()],
          )
          const fewer = splitByText(texts.slice(0, 200), fraction)
          assert.deepEqual(
            split.validation.filter((index) => index < 200),
            fewer.validation,
          )
        },
      ),
    ),
  )
})

t.test('a fraction out of range, or one that empties a side, is refused', async (t) => {
  for (const fraction of [0, 1, -0.1, Number.NaN]) {
    t.throws(() => splitByText(texts, fraction), { code: 'INVALID_ARGUMENT' })
  }
  t.throws(() => splitByText(['one text'], 0.5), { code: 'INVALID_ARGUMENT' })
  t.throws(() => splitByText([], 0.5), { code: 'INVALID_ARGUMENT' })
})
