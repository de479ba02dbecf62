import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { Dataset, groupByUser } from '../../lib/data/index.js'

t.test('users in the order in which they appear, each with their first rows', async (t) => {
  const { order, unitOffsets, leftOut } = groupByUser(['ann', 'bob', 'ann', 'ann', 'cy', 'bob'], 2)
  t.same([...order], [0, 2, 1, 5, 4])
  t.same([...unitOffsets], [0, 2, 4, 5])
  t.equal(leftOut, 1)
  t.same(groupByUser([], 3), { order: new Int32Array(0), unitOffsets: Int32Array.of(0), leftOut: 0 })
  for (const most of [0, -1, 1.5, Number.NaN]) t.throws(() => groupByUser(['a'], most), { code: 'INVALID_ARGUMENT' })
})

t.test("a user's rows depend on that user alone", async (t) => {
  const rows = fc.array(fc.constantFrom('a', 'b', 'c', 'd', '__proto__'), { maxLength: 40 })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(rows, fc.integer({ min: 1, max: 5 }), fc.constantFrom('a', '__proto__'), (groups, most, gone) => {
        const all = groupByUser(groups, most)
        const users = [...new Set(groups)]
        assert.equal(all.unitOffsets.length, users.length + 1)
        for (const [user, name] of users.entries()) {
          const kept = [...all.order.subarray(all.unitOffsets[user]!, all.unitOffsets[user + 1]!)]
          const theirs = [...groups.keys()].filter((row) => groups[row] === name)
          assert.deepEqual(kept, theirs.slice(0, most))
        }
        const places = [...groups.keys()].filter((row) => groups[row] !== gone)
        const without = groupByUser(
          places.map((row) => groups[row]!),
          most,
        )
        assert.deepEqual(
          Array.from(without.order, (place) => places[place]),
          [...all.order].filter((row) => groups[row] !== gone),
        )
      }),
    ),
  )
})

t.test('a data set of users', async (t) => {
  const data = new Dataset({
    ids: Int32Array.of(1, 2, 3, 4, 5, 6),
    offsets: Int32Array.of(0, 2, 2, 5, 6),
    labels: Int32Array.of(0, 1, 1, 0),
    unitOffsets: Int32Array.of(0, 3, 4),
  })
  t.equal(data.length, 2)
  t.same([...data.lengthsOf([0, 1])], [5, 1])
  t.same([...data.labelsOf([1, 0])], [0, 0, 1, 1])
  const batch = data.batch([1, 0])
  t.same([...batch.ids], [6, 1, 2, 3, 4, 5])
  t.same([...batch.positions], [0, 0, 1, 0, 1, 2], 'a position is counted from the start of its sequence')
  t.same([...batch.offsets], [0, 1, 6])
  t.same([...batch.sequenceOffsets!], [0, 1, 3, 3, 6])
  t.same([...batch.unitSequences!], [0, 1, 4])
  const part = data.subset([1, 0])
  t.same([...part.unit(1).sequences!], [2, 0, 3])
  const { ids, offsets, labels } = data
  t.not(new Dataset({ ids, offsets, labels }).fingerprint(), data.fingerprint(), 'who wrote what is part of the data')
  for (const unitOffsets of [[0, 3], [1, 4], [0, 3, 2, 4], []]) {
    t.throws(() => new Dataset({ ids, offsets, labels, unitOffsets: Int32Array.from(unitOffsets) }), /unitOffsets/)
  }
})
