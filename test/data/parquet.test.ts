import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

import t from 'tap'
import { readExamples, streamExamples } from '../../lib/data/index.js'
import { ParquetFile } from '../../lib/data/parquet.js'
import { parquetWriteBuffer } from '../support/parquet-writer.js'

const fixture = (codec: string) => fileURLToPath(new URL(`fixtures/parquet/${codec}.parquet`, import.meta.url))
const root = t.testdir()

type Columns = Parameters<typeof parquetWriteBuffer>[0]['columnData']

/** Writes a file with these columns. */
function written(name: string, columnData: Columns, features?: object): string {
  const path = join(root, name)
  const kvMetadata = features ? [{ key: 'huggingface', value: JSON.stringify({ info: { features } }) }] : []
  writeFileSync(path, Buffer.from(parquetWriteBuffer({ columnData, kvMetadata, rowGroupSize: 2 })))
  return path
}

t.test('what pyarrow writes: every codec, dictionaries, row groups; class numbers become their names', async (t) => {
  const columns = { text: 'sentence', label: 'label', group: 'author' }
  for (const codec of ['none', 'snappy', 'gzip', 'zstd', 'brotli', 'lz4']) {
    const examples = await readExamples(fixture(codec), columns)
    t.same(
      examples,
      Array.from({ length: 7 }, (_, i) => ({
        text: `text ${i} é ${'words and more words '.repeat(i % 3)}`,
        label: ['negative', 'positive'][i % 2],
        group: `author ${i % 3}`,
        line: i + 1,
      })),
      codec,
    )
  }
  t.same(
    (await readExamples(fixture('snappy'), { ...columns, limit: 4 })).map(({ line }) => line),
    [1, 2, 3, 4],
  )
  const renamed = await readExamples(fixture('snappy'), { ...columns, labelNames: ['bad', 'good'] })
  t.same([renamed[0]!.label, renamed[1]!.label], ['bad', 'good'], 'names that are given win')
  await using file = await ParquetFile.open(fixture('snappy'))
  t.same(file.columns, ['sentence', 'label', 'author', 'stars'])
  t.equal(file.labelNames('author'), undefined)
})

t.test('labels of every kind; one beyond the names stays a number', async (t) => {
  const text = { name: 'text', data: ['a', '', 'c'] }
  const names = { label: { names: ['no', 'yes'], _type: 'ClassLabel' } }
  const labels = async (data: unknown[], type: string, features?: object) => {
    const path = written('kinds.parquet', [text, { name: 'label', data, type }] as Columns, features)
    return (await readExamples(path, { text: 'text', label: 'label' })).map(({ label }) => label)
  }
  t.same(await labels([1n, 0n, 1n], 'INT64'), ['1', '0', '1'])
  t.same(await labels([1, 0, 1], 'INT32', names), ['yes', 'no', 'yes'])
  t.same(await labels([1n, -1n, 2n], 'INT64', names), ['yes', '-1', '2'])
  t.same(await labels([true, false, true], 'BOOLEAN'), ['true', 'false', 'true'])
  t.same(await labels([' spam ', 'ham', '1'], 'STRING', { label: { dtype: 'string' } }), ['spam', 'ham', '1'])
  const spaced = { label: { names: [' no', 'yes '], _type: 'ClassLabel' } }
  t.same(await labels([1n, 0n, 1n], 'INT64', spaced), ['yes', 'no', 'yes'], 'names without their spaces, as everywhere')
})

t.test('several files are one data set, of any formats', async (t) => {
  const first = written('first.parquet', [
    { name: 'text', data: ['a'] },
    { name: 'label', data: ['x'] },
  ])
  const second = join(root, 'second.csv')
  writeFileSync(second, 'label,text\n1,b\n0,c\n')
  const options = { text: 'text', label: 'label', labelNames: ['zero', 'one'] }
  const examples = [
    { text: 'a', label: 'x', line: 1, file: first },
    { text: 'b', label: 'one', line: 2, file: second },
    { text: 'c', label: 'zero', line: 3, file: second },
  ]
  t.same(await readExamples([first, second], options), examples)
  t.same(await readExamples([first, second], { ...options, limit: 2 }), examples.slice(0, 2))
  const jsonl = join(root, 'third.jsonl')
  writeFileSync(jsonl, '{"text":"d","label":1}\n')
  t.same(await readExamples([jsonl], options), [{ text: 'd', label: 'one', line: 1, file: jsonl }])
})

t.test('what is refused, by file and row', async (t) => {
  const columns = { text: 'text', label: 'label' }
  const cut = join(root, 'cut.parquet')
  const bytes = readFileSync(fixture('snappy'))
  for (const [name, content] of [
    ['empty', Buffer.alloc(0)],
    ['text', Buffer.from('text,label\na,b\n')],
    ['cut at the end', bytes.subarray(0, bytes.length - 20)],
    ['cut at the front', Buffer.concat([bytes.subarray(0, 4), bytes.subarray(400)])],
    ['a longer footer', Buffer.concat([bytes.subarray(0, -8), Buffer.from([0, 0, 0, 0x7f]), Buffer.from('PAR1')])],
  ] as const) {
    writeFileSync(cut, content)
    const reading = readExamples(cut, { text: 'sentence', label: 'label' })
    await t.rejects(reading, { code: 'DATA_FORMAT', message: /cut\.parquet: it cannot be read as Parquet \(/ }, name)
  }
  await t.rejects(readExamples(join(root, 'none.parquet'), columns), { code: 'FILE_NOT_FOUND' })
  await t.rejects(readExamples(fixture('snappy'), columns), {
    code: 'DATA_FORMAT',
    message: /snappy\.parquet: there is no column 'text'; the columns are 'sentence', 'label', 'author', 'stars'/,
  })
  await t.rejects(readExamples(fixture('snappy'), { text: 'stars', label: 'label' }), {
    message: /snappy\.parquet:1: 'stars' is a number\. Texts must be strings/,
  })
  const holes = written('holes.parquet', [
    { name: 'text', data: ['a', 'b', null, 'd'] },
    { name: 'label', data: ['x', 'y', 'x', null] },
  ])
  await t.rejects(readExamples(holes, columns), { message: /holes\.parquet:3: 'text' is null/ })
  await t.rejects(readExamples(holes, { text: 'label', label: 'label' }), {
    message: /holes\.parquet:4: 'label' is null/,
  })
  await t.rejects(readExamples(holes, { text: 'label', label: 'text' }), {
    message: /holes\.parquet:3: the label in column 'text' is missing/,
  })
  const none = written('none.parquet', [
    { name: 'text', data: [], type: 'STRING' },
    { name: 'label', data: [], type: 'STRING' },
  ])
  await t.rejects(readExamples(none, columns), { message: /none\.parquet: the file has no rows/ })
  const stream = { name: 'standard input', stream: (async function* () {})() }
  await t.rejects(
    (async () => {
      for await (const _ of streamExamples(stream, { ...columns, format: 'parquet' }));
    })(),
    { code: 'INVALID_ARGUMENT', message: /from a file, not from a stream/ },
  )
})

t.test('a damaged byte is an error or another value, never something else', async (t) => {
  const bytes = readFileSync(fixture('gzip'))
  const path = join(root, 'damaged.parquet')
  for (let at = 0; at < bytes.length; at += 7) {
    const damaged = Buffer.from(bytes)
    damaged[at]! ^= 0xff
    writeFileSync(path, damaged)
    try {
      for (const { text } of await readExamples(path, { text: 'sentence', label: 'label' })) {
        if (typeof text !== 'string') t.fail(`byte ${at}: a text that is none`)
      }
    } catch (error) {
      if ((error as { code?: string }).code !== 'DATA_FORMAT') t.fail(`byte ${at}: ${error}`)
    }
  }
  t.pass()
})

t.test('a number of rows or columns that is another one is an error at once, or changes nothing', async (t) => {
  const bytes = readFileSync(fixture('none'))
  const footer = bytes.length - 8 - bytes.readUInt32LE(bytes.length - 8)
  const path = join(root, 'numbers.parquet')
  const large = Buffer.of(0xfe, 0xff, 0xff, 0xff, 0x0f) // 2^31 - 1 as a number of 64 bits
  const expected = await readExamples(fixture('none'), { text: 'sentence', label: 'label' })
  for (let at = footer; at < bytes.length - 8; at++) {
    // Twice 1, 3 and 7 rows, and twice 4 columns.
    if (![2, 6, 14, 8].includes(bytes[at]!)) continue
    const changed = Buffer.concat([bytes.subarray(footer, at), large, bytes.subarray(at + 1, bytes.length - 8)])
    const length = Buffer.alloc(4)
    length.writeUInt32LE(changed.length)
    writeFileSync(path, Buffer.concat([bytes.subarray(0, footer), changed, length, Buffer.from('PAR1')]))
    try {
      const found = await readExamples(path, { text: 'sentence', label: 'label' })
      if (found.length !== expected.length) t.fail(`byte ${at}: ${found.length} rows`)
    } catch (error) {
      if ((error as { code?: string }).code !== 'DATA_FORMAT') t.fail(`byte ${at}: ${error}`)
    }
  }
  t.pass()
})
