import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { type EncodedUnit, packBatch, splitIntoMicroBatches } from '../../lib/data/index.js'

t.test('units lie side by side, unpadded', async (t) => {
  const batch = packBatch([
    { ids: Int32Array.of(5, 6), weights: Float32Array.of(0.5, 2), unit: 40 },
    { ids: new Int32Array(0), weights: new Float32Array(0), unit: 2 },
    { ids: Int32Array.of(7), weights: Float32Array.of(1), unit: 3 },
  ])
  t.same(batch, {
    ids: Int32Array.of(5, 6, 7),
    weights: Float32Array.of(0.5, 2, 1),
    positions: Int32Array.of(0, 1, 0),
    offsets: Int32Array.of(0, 2, 2, 3),
    units: Int32Array.of(40, 2, 3),
  })
})

t.test('no units give an empty batch', async (t) => {
  const batch = packBatch([])
  t.same(batch.offsets, Int32Array.of(0))
  t.equal(batch.ids.length + batch.positions.length + batch.units.length, 0)
})

t.test('weights on some units only are refused', async (t) => {
  const units = [
    { ids: Int32Array.of(1), unit: 0 },
    { ids: Int32Array.of(1), weights: Float32Array.of(1), unit: 1 },
  ]
  t.throws(() => packBatch(units), { code: 'INVALID_ARGUMENT' })
})

const unit = (weighted: boolean): fc.Arbitrary<EncodedUnit> =>
  fc.tuple(fc.array(fc.nat(1e6), { maxLength: 8 }), fc.nat(1e6)).map(([ids, unit]) => ({
    ids: Int32Array.from(ids),
    ...(weighted ? { weights: Float32Array.from(ids, (id) => id / 3) } : {}),
    unit,
  }))

t.test('packing loses nothing: the units come back from offsets', async (t) => {
  const units = fc.boolean().chain((weighted) => fc.array(unit(weighted), { maxLength: 20 }))
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(units, (units) => {
        const batch = packBatch(units)
        const back = Array.from(batch.units, (unit, index): EncodedUnit => {
          const rows = [batch.offsets[index], batch.offsets[index + 1]] as const
          assert.deepEqual([...batch.positions.subarray(...rows)], [...batch.ids.subarray(...rows).keys()])
          const weights = batch.weights?.slice(...rows)
          return { ids: batch.ids.slice(...rows), ...(weights ? { weights } : {}), unit }
        })
        assert.deepEqual(back, units)
        assert.equal(batch.offsets.at(-1), batch.ids.length)
      }),
    ),
  )
})

t.test('micro-batches: a long unit is alone, empty units are free', async (t) => {
  const ranges = (lengths: number[], maxRows: number) =>
    splitIntoMicroBatches(lengths, maxRows).map(({ start, end }) => [start, end])
  t.same(ranges([], 4), [])
  t.same(ranges([0, 0, 0], 4), [[0, 3]])
  t.same(ranges([2, 2, 1], 4), [
    [0, 2],
    [2, 3],
  ])
  t.same(ranges([1, 9, 1], 4), [
    [0, 1],
    [1, 2],
    [2, 3],
  ])
  t.same(ranges([4, 0, 0, 4], 4), [
    [0, 3],
    [3, 4],
  ])
  t.same(ranges([9], 4), [[0, 1]])
  t.throws(() => splitIntoMicroBatches([1], 0), { code: 'INVALID_ARGUMENT' })
  t.throws(() => splitIntoMicroBatches([1], Number.NaN), { code: 'INVALID_ARGUMENT' })
})

t.test(
  'micro-batches cover every unit once, in order, within the budget, and none could take the next unit',
  async (t) => {
    t.doesNotThrow(() =>
      fc.assert(
        fc.property(fc.array(fc.nat(20), { maxLength: 40 }), fc.integer({ min: 1, max: 30 }), (lengths, maxRows) => {
          const ranges = splitIntoMicroBatches(lengths, maxRows)
          const rows = (start: number, end: number) =>
            lengths.slice(start, end).reduce((sum, length) => sum + length, 0)
          let next = 0
          for (const { start, end } of ranges) {
            assert.equal(start, next)
            assert.ok(end > start)
            assert.ok(rows(start, end) <= maxRows || end === start + 1)
            if (end < lengths.length) assert.ok(rows(start, end + 1) > maxRows)
            next = end
          }
          assert.equal(next, lengths.length)
        }),
      ),
    )
  },
)
