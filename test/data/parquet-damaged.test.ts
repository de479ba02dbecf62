import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { gzipSync } from 'node:zlib'
import t, { type Test } from 'tap'
import { readExamples } from '../../lib/data/index.js'
import { UnpackingBudget } from '../../lib/data/parquet/budget.js'
import { readColumnChunk } from '../../lib/data/parquet/column-chunk.js'
import {
  dictionaryPage,
  Encoding,
  lengthAndBytes,
  page,
  pageV2,
  plainInt64,
  plainStrings,
  type RawColumn,
  rawParquet,
  Type,
  UTF8,
  varint,
} from './support/raw-parquet.js'

const columns = { text: 'text', label: 'label' }

const text = (values: readonly (string | Uint8Array)[]): RawColumn => {
  const pages = [page(values.length, plainStrings(values))]
  return { name: 'text', type: Type.bytes, converted: UTF8, values: values.length, pages }
}
const label = (...values: bigint[]): RawColumn => {
  const pages = [page(values.length, plainInt64(values))]
  return { name: 'label', type: Type.int64, values: values.length, pages }
}
const four = text(['a', 'b', 'c', 'd'])

function write(t: Test, bytes: Buffer): string {
  const path = join(t.testdir(), 'file.parquet')
  writeFileSync(path, bytes)
  return path
}

async function labels(t: Test, ...file: Parameters<typeof rawParquet>): Promise<string[]> {
  const examples = await readExamples(write(t, rawParquet(...file)), columns)
  return examples.map(({ label }) => label)
}

async function refused(t: Test, message: RegExp, ...file: Parameters<typeof rawParquet>): Promise<void> {
  const reading = readExamples(write(t, rawParquet(...file)), columns)
  await t.rejects(reading, { code: 'DATA_FORMAT', message }, message.source)
}

t.test('a page of places in a dictionary needs the dictionary, and places that it has', async (t) => {
  const dictionary = dictionaryPage(2, plainInt64([7n, 3n]))
  const places = (...bytes: number[]) => page(4, Buffer.from(bytes), Encoding.dictionary)
  const column = (...pages: Buffer[]): RawColumn => ({ ...label(), values: 4, pages, dictionary: pages.length > 1 })
  const packed = places(1, 3, 0b1001)
  t.same(await labels(t, [four, column(dictionary, packed)], 4), ['3', '7', '7', '3'])
  t.same(await labels(t, [four, column(dictionary, places(0))], 4), ['7', '7', '7', '7'], 'places without bits')
  await refused(t, /refers to a dictionary that is missing/, [four, column(packed)], 4)
  await refused(
    t,
    /an entry that its dictionary does not have/,
    [four, column(dictionary, places(2, 3, 0xff, 0xff))],
    4,
  )
  await refused(t, /an entry that its/, [four, column(dictionaryPage(0, Buffer.alloc(0)), places(0))], 4)
  await refused(t, /two dictionaries/, [four, column(dictionary, dictionary, packed)], 4)
})

t.test('types, names and numbers of rows must be those of the file', async (t) => {
  const numbers = label(1n, 2n, 3n, 4n)
  t.same(await labels(t, [four, numbers], 4), ['1', '2', '3', '4'])
  await refused(t, /columns of another name or type/, [four, { ...numbers, claimedType: Type.int32 }], 4)
  await refused(t, /two columns 'label'/, [four, numbers, label(5n, 6n, 7n, 8n)], 4)
  await refused(t, /two columns in it have the same bytes/, [four, numbers], 4, 2)
  await refused(t, /more values than rows/, [text(['a', 'b']), { ...numbers, values: 2 }], 2)
  await refused(
    t,
    /fewer values than rows/,
    [
      { ...four, values: 6 },
      { ...numbers, values: 6 },
    ],
    6,
  )
  await refused(t, /numbers of rows in it do not fit together/, [four, { ...numbers, values: 5 }], 4)
  const child: RawColumn = { ...label(9n), repetition: 2 }
  const list: RawColumn = { ...child, name: 'more', repetition: 0, children: [child] }
  t.same(await labels(t, [list, four, numbers], 4), ['1', '2', '3', '4'], 'columns inside another are passed over')
  const wrong = { ...numbers, values: 5 }
  await refused(t, /numbers of rows in it do not/, [list, four, wrong], 4)
})

t.test('what is not text is refused by row, as in other formats', async (t) => {
  const two = label(1n, 2n)
  const notUtf8 = /file\.parquet:2: 'text' is not valid UTF-8, or holds a NUL byte\. Correct it/
  await refused(t, notUtf8, [text(['a', Buffer.of(0x41, 0xff)]), two], 2)
  await refused(t, notUtf8, [text(['a', 'b\0c']), two], 2)
  const marked = await readExamples(write(t, rawParquet([text(['\ufeffa', 'b']), two], 2)), columns)
  t.equal(marked[0]!.text, '\ufeffa', 'nothing of a text is dropped')
})

t.test('small files that claim much are errors at once', async (t) => {
  const numbers = label(7n, 3n, 1n, 7n)
  const many = 2 ** 31
  const rows = [
    { ...four, values: many },
    { ...numbers, values: many },
  ] as const
  await refused(t, /more rows than its bytes can hold/, rows, many)
  const run = (length: number) => lengthAndBytes([...varint(length * 2), 1])
  const optional = (count: number, levels: Buffer): RawColumn => {
    const pages = [page(count, Buffer.concat([levels, plainStrings(['a', 'b', 'c', 'd'])]))]
    return { ...four, repetition: 1, pages }
  }
  t.same(await labels(t, [optional(4, run(4)), numbers], 4), ['7', '3', '1', '7'])
  const packed = page(4, Buffer.from([15, ...plainStrings(['a', 'b', 'c', 'd'])]), 0, { levels: Encoding.bitPacked })
  await refused(t, /levels of an encoding that is not read/, [{ ...four, repetition: 1, pages: [packed] }, numbers], 4)
  await refused(t, /a page in it has more values than it says/, [optional(4, run(2 ** 30)), numbers], 4)
  await refused(t, /a column in it has more values than rows/, [optional(2 ** 30, run(2 ** 30)), numbers], 4)
  const dictionary = dictionaryPage(2, plainInt64([7n, 3n]))
  const endless = Buffer.from([0, ...varint(0x20000001), 0, 0, 0, 0, 0])
  const hanging = { ...numbers, dictionary: true, pages: [dictionary, pageV2(4, endless, Encoding.dictionary)] }
  await refused(t, /a page in it has more values than it says/, [four, hanging], 4)
  const hugeDictionary = [dictionaryPage(2 ** 30, plainInt64([7n, 3n])), pageV2(4, endless, Encoding.dictionary)]
  await refused(t, /a page ends too early/, [four, { ...hanging, pages: hugeDictionary }], 4)
  for (const blocks of [
    [128, 0],
    [128, 2 ** 30],
    [0, 1],
    [2 ** 30, 1],
  ]) {
    const body = Buffer.from([...blocks.flatMap(varint), 4, 0, ...Array(3000).fill(0)])
    const deltas = { ...numbers, pages: [page(4, body, Encoding.delta)] }
    if (blocks[0] === 2 ** 30) t.same(await labels(t, [four, deltas], 4), ['0', '0', '0', '0'], 'one large block')
    else await refused(t, /blocks that do not fit together|ends too early/, [four, deltas], 4)
  }
})

t.test('a page unpacks to no more than it says, and a column to no more than its size allows', async (t) => {
  const numbers = label(7n, 3n, 1n, 7n)
  const body = gzipSync(Buffer.concat([plainStrings(['a', 'b', 'c', 'd']), Buffer.alloc(80 * 2 ** 20)]), { level: 1 })
  const bomb = (size: number): RawColumn => ({ ...four, codec: 2, pages: [page(4, body, Encoding.plain, { size })] })
  await refused(t, /Cannot create a Buffer larger/, [bomb(20), numbers], 4)
  await refused(t, /unpacks to more than 128 times its size/, [bomb(2 ** 30), numbers], 4)
  const half = gzipSync(Buffer.concat([plainStrings(['a', 'b']), Buffer.alloc(40 * 2 ** 20)]))
  const halfPage = page(2, half, Encoding.plain, { size: 40 * 2 ** 20 + 10 })
  t.same(await labels(t, [{ ...four, values: 2, codec: 2, pages: [halfPage] }, label(1n, 2n)], 2), ['1', '2'])
  await refused(t, /unpacks to more than 128 times/, [{ ...four, codec: 2, pages: [halfPage, halfPage] }, numbers], 4)
  const frame = Buffer.from([0x28, 0xb5, 0x2f, 0xfd, 0, 0x38, ...Array(4096).fill([2, 0, 16, 0]).flat(), 1, 0, 0])
  const zstd: RawColumn = { ...four, codec: 6, pages: [page(4, frame, Encoding.plain, { size: 20 })] }
  await refused(t, /a page in it unpacks to more than it says/, [zstd, numbers], 4)
})

t.test('other work gets its turn between pages', async (t) => {
  const type = { type: 'BYTE_ARRAY', optional: false, meaningOf: String } as const
  const pages = Buffer.concat([page(2, plainStrings(['a', 'b'])), page(1, plainStrings(['c']))])
  let turned = false
  setImmediate(() => {
    turned = true
  })
  const slowly = (input: Uint8Array) => {
    for (const start = performance.now(); performance.now() < start + 11; );
    return input
  }
  t.same(await readColumnChunk(pages, type, 3, slowly, new UnpackingBudget(0)), ['a', 'b', 'c'])
  t.ok(turned)
})
