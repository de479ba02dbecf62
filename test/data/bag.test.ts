import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { bagOf } from '../../lib/data/index.js'

const ids = Int32Array.of(7, 3, 7, 7, 3, 9)

t.test('weights of a bag', async (t) => {
  t.same(bagOf(ids, { weighting: 'count', normalise: false }), {
    ids: Int32Array.of(3, 7, 9),
    weights: Float32Array.of(2, 3, 1),
  })
  t.same(bagOf(ids, { weighting: 'binary', normalise: false }).weights, Float32Array.of(1, 1, 1))
  t.same(
    bagOf(ids, { weighting: 'log', normalise: false }).weights,
    Float32Array.of(Math.log(3), Math.log(4), Math.log(2)),
  )
  t.same(bagOf(ids), bagOf(ids, { weighting: 'log', normalise: true }), 'log and normalised is the default')
})

t.test('no ids give an empty bag', async (t) => {
  t.same(bagOf(new Int32Array(0)), { ids: new Int32Array(0), weights: new Float32Array(0) })
})

t.test('a bag does not depend on the order, keeps its input, and has norm 1', async (t) => {
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(
        fc.array(fc.integer({ min: 0, max: 50 }), { minLength: 1, maxLength: 200 }),
        fc.constantFrom('count', 'log', 'binary'),
        (values, weighting) => {
          const input = Int32Array.from(values)
          const bag = bagOf(input, { weighting })
          assert.deepEqual(input, Int32Array.from(values))
          assert.deepEqual(bagOf(Int32Array.from(values.toReversed()), { weighting }), bag)
          assert.deepEqual(
            [...bag.ids],
            [...new Set(values)].sort((a, b) => a - b),
          )
          assert.ok(Math.abs(bag.weights.reduce((sum, weight) => sum + weight * weight, 0) - 1) < 1e-5)
        },
      ),
    ),
  )
})
