import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import * as fc from 'fast-check'
import t from 'tap'
import { readExamples } from '../../lib/data/index.js'
import { ParquetFile } from '../../lib/data/parquet.js'
import { parquetWriteBuffer } from '../support/parquet-writer.js'
import {
  DECIMAL,
  Encoding,
  page,
  plainInt64,
  plainStrings,
  type RawColumn,
  rawParquet,
  Type,
  UTF8,
  varint,
} from './support/raw-parquet.js'

const path = join(t.testdir(), 'file.parquet')

type Columns = Parameters<typeof parquetWriteBuffer>[0]['columnData']

/** A column's values after they were written with these settings. */
async function back(column: Omit<Columns[number], 'name'>, options: object = {}): Promise<unknown[]> {
  const columnData = [{ name: 'one', ...column }] as Columns
  writeFileSync(path, Buffer.from(parquetWriteBuffer({ columnData, ...options })))
  await using file = await ParquetFile.open(path)
  const values: unknown[] = []
  for await (const { value } of file.rows(['one'])) values.push(value.one)
  return values
}

const int32 = fc.integer({ min: -(2 ** 31), max: 2 ** 31 - 1 })
const int64 = fc.bigInt({ min: -(2n ** 63n), max: 2n ** 63n - 1n })
const words = fc.string({ unit: 'grapheme', maxLength: 12 }).filter((word) => !word.includes('\0'))

t.test('every type is read back from every encoding, with and without missing values', async (t) => {
  const float = fc.float({ noNaN: true }).filter((value) => !Object.is(value, -0))
  const double = fc.double({ noNaN: true }).filter((value) => !Object.is(value, -0))
  const table: [string, fc.Arbitrary<unknown>, string[]][] = [
    ['BOOLEAN', fc.boolean(), ['PLAIN', 'RLE']],
    ['INT32', int32, ['PLAIN', 'RLE_DICTIONARY', 'DELTA_BINARY_PACKED', 'BYTE_STREAM_SPLIT']],
    ['INT64', int64, ['PLAIN', 'RLE_DICTIONARY', 'DELTA_BINARY_PACKED', 'BYTE_STREAM_SPLIT']],
    ['FLOAT', float, ['PLAIN', 'BYTE_STREAM_SPLIT']],
    ['DOUBLE', double, ['PLAIN', 'BYTE_STREAM_SPLIT']],
    ['STRING', words, ['PLAIN', 'RLE_DICTIONARY', 'DELTA_LENGTH_BYTE_ARRAY', 'DELTA_BYTE_ARRAY']],
  ]
  for (const [type, arbitrary, encodings] of table) {
    for (const encoding of encodings) {
      const some = fc.array(arbitrary, { minLength: 1, maxLength: 300, size: 'max' })
      const withHoles = fc.array(fc.option(arbitrary), { minLength: 1, maxLength: 40, size: 'max' })
      const property = fc.asyncProperty(fc.oneof(some, withHoles), fc.constantFrom(20, 10_000), async (data, size) => {
        const options = { pageSize: size, rowGroupSize: 170, codec: size > 20 ? 'SNAPPY' : 'UNCOMPRESSED' }
        assert.deepEqual(await back({ data, type, encoding, nullable: true } as Columns[number], options), data)
      })
      await t.resolves(fc.assert(property, { numRuns: 12 }), `${type} ${encoding}`)
    }
  }
})

t.test('long runs, wide dictionaries and many pages', async (t) => {
  const count = 5000
  for (const [name, data] of Object.entries({
    'one value': Array(count).fill('same'),
    'two runs': Array.from({ length: count }, (_, i) => (i < 3000 ? 'a' : 'b')),
    'many values twice': Array.from({ length: count }, (_, i) => `value ${i % (count / 2)}`),
    'runs with holes': Array.from({ length: count }, (_, i) => (i % 1000 < 300 ? null : `value ${i % 3}`)),
  })) {
    t.same(await back({ data, type: 'STRING', encoding: 'RLE_DICTIONARY' }, { pageSize: 300 }), data, name)
  }
})

const ids = [1234567890123456789n, 1234567890123456790n, 1234567890123456791n]
const text: RawColumn = {
  name: 'text',
  type: Type.bytes,
  converted: UTF8,
  values: 3,
  pages: [page(3, plainStrings(['a', 'b', 'c']))],
}
const author = { name: 'author', values: 3 }
const options = { text: 'text', group: 'author' }

/** A big-endian integer of 16 bytes. */
function wide(value: bigint): Buffer {
  const bytes = Buffer.alloc(16)
  bytes.writeBigInt64BE(value >> 64n)
  bytes.writeBigUInt64BE(BigInt.asUintN(64, value), 8)
  return bytes
}

async function groups(column: RawColumn): Promise<(string | undefined)[]> {
  writeFileSync(path, rawParquet([text, column], 3))
  return (await readExamples(path, options)).map(({ group }) => group)
}

t.test('people whose ids differ stay different: integers and decimals of any size', async (t) => {
  const decimal = { ...author, converted: DECIMAL, scale: 0, precision: 38 }
  const wideIds = [...ids.slice(0, 2), -(10n ** 37n)]
  const bytes = Buffer.concat(wideIds.map(wide))
  t.same(await groups({ ...decimal, type: Type.fixed, typeLength: 16, pages: [page(3, bytes)] }), wideIds.map(String))
  const strings = plainStrings([wide(ids[0]!), Buffer.of(0xff), Buffer.of(0, 0x80)])
  t.same(await groups({ ...decimal, type: Type.bytes, pages: [page(3, strings)] }), [String(ids[0]), '-1', '128'])
  t.same(await groups({ ...decimal, type: Type.int64, pages: [page(3, plainInt64(ids))] }), ids.map(String))
  const large = [-1n, -2n, 5n]
  const unsigned = { ...author, type: Type.int64, converted: 14, pages: [page(3, plainInt64(large))] }
  t.same(await groups(unsigned), [`${2n ** 64n - 1n}`, `${2n ** 64n - 2n}`, '5'])
  const noLevels = page(3, plainInt64(ids), Encoding.plain, { levels: Encoding.bitPacked })
  t.same(await groups({ ...author, type: Type.int64, pages: [noLevels] }), ids.map(String), 'as parquet-mr writes it')
  const uuids = Buffer.concat([...ids.map(wide)])
  const uuid = { ...author, type: Type.fixed, typeLength: 16, logical: { 14: {} }, pages: [page(3, uuids)] }
  t.equal((await groups(uuid))[0], '00000000-0000-0000-1122-10f47de98115')
})

t.test('columns whose values cannot be told apart as names are refused', async (t) => {
  const int64 = { ...author, type: Type.int64, pages: [page(3, plainInt64(ids))] }
  const keys = [Buffer.of(0, 0, 0, 0x81), Buffer.of(0, 0, 0, 0x82), Buffer.of(0, 0, 0, 0xff)]
  const table: [RegExp, RawColumn][] = [
    [/DECIMAL with digits after the point/, { ...int64, converted: DECIMAL, scale: 2, precision: 18 }],
    [/bytes without an encoding/, { ...author, type: Type.bytes, pages: [page(3, plainStrings(keys))] }],
    [/TIMESTAMP, which is not read/, { ...int64, logical: { 8: { 1: true, 2: { 3: {} } } } }],
    [/TIMESTAMP_MICROS/, { ...int64, converted: 10 }],
    [/TIME_MICROS/, { ...int64, converted: 8 }],
    [/bytes/, { ...author, type: Type.fixed, typeLength: 8, pages: int64.pages }],
    [/a list or an object/, { ...int64, repetition: 2 }],
    [/a list or an object/, { ...int64, children: [{ ...int64, name: 'id' }] }],
  ]
  for (const [what, column] of table) {
    const message = new RegExp(`file\\.parquet: the column 'author' is .*${what.source}.*Write it as strings`)
    await t.rejects(groups(column), { code: 'DATA_FORMAT', message }, what.source)
  }
  const short = [0, 2 * 15].flatMap((length) => [...varint(128), ...varint(4), ...varint(1), length])
  const cut = page(1, Buffer.from([...short, ...Array(15).fill(1)]), Encoding.deltaStrings)
  const fixed = { ...author, converted: DECIMAL, type: Type.fixed, typeLength: 16, pages: [cut] }
  await t.rejects(groups(fixed), { message: /an encoding that its type cannot have/ }, 'a fixed length must be kept')
  const doubles = (...values: number[]) => ({
    ...author,
    type: Type.double,
    pages: [page(3, Buffer.from(Float64Array.from(values).buffer))],
  })
  t.same(await groups(doubles(1, -2, 9007199254740991)), ['1', '-2', '9007199254740991'])
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 2 ** 53, 0.5]) {
    await t.rejects(groups(doubles(1, bad, 3)), { message: /file\.parquet:2: 'author' is the number / }, String(bad))
  }
})
