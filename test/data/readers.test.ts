import assert from 'node:assert/strict'
import { chmod, writeFile } from 'node:fs/promises'
import { join } from 'node:path'
import * as fc from 'fast-check'
import t, { type Test } from 'tap'
import { type ReadOptions, readExamples, streamExamples } from '../../lib/data/index.js'

const COLUMNS = { text: 'text', label: 'label' }

/** Reads a file with this content, made in a temporary folder. */
async function read(t: Test, name: string, content: string | Uint8Array, options: Partial<ReadOptions> = {}) {
  const file = join(t.testdir(), name)
  await writeFile(file, content)
  return readExamples(file, { ...COLUMNS, ...options })
}

t.test('JSON Lines: names, numbers and truth values as labels; blank lines skipped; keys in any order', async (t) => {
  const lines = [
    '{"text":"one\\nline","label":"spam"}\r',
    '',
    '{"label":0,"text":"","more":[1]}',
    '  {"text":"\\u0000 \u00e9","label":" ham "}',
    '{"text":"x","label":true}',
  ]
  t.same(await read(t, 'a.jsonl', lines.join('\n')), [
    { text: 'one\nline', label: 'spam', line: 1 },
    { text: '', label: '0', line: 3 },
    { text: '\u0000 \u00e9', label: 'ham', line: 4 },
    { text: 'x', label: 'true', line: 5 },
  ])
})

t.test('numbers that may be several are no names: no two people, and no two classes, become one', async (t) => {
  const lines = (key: string, ...numbers: string[]) =>
    numbers.map((number) => `{"text":"a","label":"x","${key}":${number}}\n`).join('')
  const groups = async (...numbers: string[]) =>
    (await read(t, 'a.jsonl', lines('who', ...numbers), { group: 'who' })).map(({ group }) => group)
  t.same(await groups('1', '-7', '9007199254740991', '"1152921504606846977"', 'true'), [
    '1',
    '-7',
    '9007199254740991',
    '1152921504606846977',
    'true',
  ])
  for (const number of ['1152921504606846977', '9007199254740993', '-9007199254740992', '0.5', '1e400']) {
    const message = /a\.jsonl:2: 'who' is the number .*, and others are read as the same one\. Write groups as strings/
    await t.rejects(groups('1', number), { code: 'DATA_FORMAT', message }, number)
  }
  const labels = async (...numbers: string[]) =>
    (await read(t, 'a.jsonl', lines('stars', ...numbers), { label: 'stars' })).map(({ label }) => label)
  t.same(await labels('4.5', '0.123456789012345', '1e-7', '1e3'), ['4.5', '0.123456789012345', '1e-7', '1000'])
  for (const number of ['0.1234567890123456', '1152921504606846977', '-1e999']) {
    const message = /a\.jsonl:1: 'stars' is the number .* Write it as a string/
    await t.rejects(labels(number), { code: 'DATA_FORMAT', message }, number)
  }
})

t.test('CSV: quotes, line breaks in quotes, CRLF, byte order mark', async (t) => {
  const content = '\ufefflabel,text,id\r\n1,"a ""b"", c\r\nd",7\r\n\r\n0,plain,8\n 1 ,,9'
  t.same(await read(t, 'a.csv', content), [
    { text: 'a "b", c\r\nd', label: '1', line: 2 },
    { text: 'plain', label: '0', line: 5 },
    { text: '', label: '1', line: 6 },
  ])
})

t.test('TSV: quotes are characters like any other', async (t) => {
  const content = 'sentence\tlabel\n"half a quote\t1\n5" disk, "new"\t0\r\n'
  t.same(await read(t, 'a.tsv', content, { text: 'sentence' }), [
    { text: '"half a quote', label: '1', line: 2 },
    { text: '5" disk, "new"', label: '0', line: 3 },
  ])
})

t.test('without a label column examples have no label', async (t) => {
  t.same(await read(t, 'a.csv', 'text\nhello\n', { label: undefined }), [{ text: 'hello', line: 2 }])
  t.same(await read(t, 'b.jsonl', '{"text":"hello"}', { label: undefined }), [{ text: 'hello', line: 1 }])
})

t.test('a stated format wins over the extension', async (t) => {
  const rows = await read(t, 'a.csv', 'text\tlabel\na,b\t1\n', { format: 'tsv' })
  t.same(rows, [{ text: 'a,b', label: '1', line: 2 }])
})

t.test('limit stops before what follows is looked at', async (t) => {
  const csv = `text,label\n${'a,1\n'.repeat(1000)}broken\n${'x\n'.repeat(9)}`
  const jsonl = `${'{"text":"a","label":1}\n'.repeat(1000)}broken\n${'x\n'.repeat(9)}`
  for (const [name, content] of [
    ['a.csv', csv],
    ['a.jsonl', jsonl],
  ] as const) {
    t.equal((await read(t, name, content, { limit: 1000 })).length, 1000)
    await t.rejects(read(t, name, content, { limit: 1001 }), { code: 'DATA_FORMAT', message: /:100[12]: / })
  }
})

t.test('what every object inherits is no column', async (t) => {
  const wrong = read(t, 'a.jsonl', '{"text":"a","label":1}', { text: 'toString' })
  await t.rejects(wrong, { message: /there is no column 'toString'/ })
})

t.test('a stream is read as it comes', async (t) => {
  async function* stream() {
    for (const part of ['{"text":"a"}\n{"te', 'xt":"b"}\n']) yield Buffer.from(part)
  }
  const source = { name: 'standard input', stream: stream() }
  const texts: string[] = []
  for await (const { text } of streamExamples(source, { text: 'text', format: 'jsonl' })) texts.push(text)
  t.same(texts, ['a', 'b'])
})

t.test('bad input is one line that says where, what and what to do', async (t) => {
  const csv = 'text,label\na,1\n'
  const badUtf8 = Buffer.concat([Buffer.from(`${csv}b,`), Buffer.of(0xe9, 0x0a), Buffer.from('c,1\n')])
  const table: [string, string | Uint8Array, RegExp][] = [
    ['empty.csv', '', /empty\.csv: the file is empty\. Give /],
    ['empty.tsv', '\n\n', /empty\.tsv: the file is empty\. Give /],
    ['empty.jsonl', '\n  \n', /empty\.jsonl: the file is empty\. Give /],
    ['header.csv', 'text,label\n', /header\.csv: the file has a header but no rows\. Add /],
    ['header.csv', '\ufefftext,label', /header\.csv: the file has a header but no rows\. Add /],
    [
      'column.csv',
      'body,label\na,1\n',
      /column\.csv:1: there is no column 'text'; the columns are 'body', 'label'\. Name /,
    ],
    [
      'column.tsv',
      'text\tclass\na\t1\n',
      /column\.tsv:1: there is no column 'label'; the columns are 'text', 'class'\./,
    ],
    [
      'column.jsonl',
      '{"text":"a","label":1}\n{"text":"b"}',
      /column\.jsonl:2: .*no column 'label'; the columns are 'text'\./,
    ],
    ['column.jsonl', '{}', /column\.jsonl:1: .*no column 'text'; there are none\./],
    ['twice.csv', 'text,label,text\na,1,b\n', /twice\.csv:1: there are two columns 'text'\. Rename/],
    [
      'json.jsonl',
      '{"text":"a","label":1}\n\nnonsense\n',
      /json\.jsonl:3: the line is not JSON \(it starts with "nonsense"\)\. Each/,
    ],
    ['json.jsonl', '[{"text":"a"}]', /json\.jsonl:1: the line is JSON but not an object/],
    ['type.jsonl', '{"text":5,"label":1}', /type\.jsonl:1: 'text' is a number\. Texts must be strings/],
    ['type.jsonl', '{"text":null,"label":1}', /type\.jsonl:1: 'text' is null/],
    ['type.jsonl', '{"text":"","label":[1]}', /type\.jsonl:1: 'label' is a list\. Labels must/],
    ['type.jsonl', '{"text":"","label":{}}', /type\.jsonl:1: 'label' is an object/],
    ['label.jsonl', '{"text":"a","label":null}', /label\.jsonl:1: the label in column 'label' is missing\. Fill/],
    ['label.jsonl', '{"text":"a","label":" "}', /label\.jsonl:1: the label in column 'label' is missing/],
    ['label.csv', `${csv}\nb,\n`, /label\.csv:4: the label in column 'label' is missing/],
    ['fields.csv', `${csv}b,1,2\n`, /fields\.csv:3: the row has 3 fields, and the header has 2\. Put/],
    ['fields.csv', 'text,label\n"a\nb"\n', /fields\.csv:2: the row has 1 fields/],
    ['fields.tsv', 'text\tlabel\na\tb\t1\n', /fields\.tsv:2: the row has 3 fields, and the header has 2\. Remove tabs/],
    [
      'quote.csv',
      `${csv}"b,1\nc,1\nd,1\n`,
      /quote\.csv:3: a double quote is opened in the row that starts here and never closed\. Put/,
    ],
    [
      'quote.csv',
      `${csv}"b"c,1\n`,
      /quote\.csv:3: the row that starts here has a double quote where none may be\. Put/,
    ],
    [
      'quote.csv',
      `${csv}b "c",1\n`,
      /quote\.csv:3: the row that starts here has a double quote where none may be\. Put/,
    ],
    ['first.csv', `${csv}b,1,2\n"c"d,1\n`, /first\.csv:3: the row has 3 fields/],
    ['utf8.csv', badUtf8, /utf8\.csv:3: the line is not valid UTF-8\. Convert/],
    ['utf8.jsonl', Buffer.of(0xff), /utf8\.jsonl:1: the line is not valid UTF-8/],
    ['utf16.csv', Buffer.from(`\ufeff${csv}`, 'utf16le'), /utf16\.csv:1: the file is UTF-16.* Save it as UTF-8/],
    ['nul.csv', `${csv}b,\u0000\n`, /nul\.csv:3: the line holds a NUL byte.* Remove/],
    ['nul.jsonl', '{"text":"a","label":1}\n\u0000', /nul\.jsonl:2: the line holds a NUL byte/],
    ['nul.tsv', 'text\tlabel\n\u0000\t1', /nul\.tsv:2: the line holds a NUL byte/],
  ]
  for (const [name, content, message] of table) {
    const error: unknown = await read(t, name, content).then(
      () => undefined,
      (error: unknown) => error,
    )
    t.match(error, { code: 'DATA_FORMAT', message }, `${name} ${JSON.stringify(content.toString().slice(0, 40))}`)
    t.notMatch((error as Error).message, /\n/, 'one line')
  }
})

t.test('files that cannot be read say why', async (t) => {
  const folder = t.testdir({ 'a.csv': 'text,label\n', 'folder.csv': {}, 'a.txt': '' })
  await t.rejects(readExamples(join(folder, 'none.csv'), COLUMNS), {
    code: 'FILE_NOT_FOUND',
    message: /none\.csv: it does not exist/,
  })
  await t.rejects(readExamples(join(folder, 'folder.csv'), COLUMNS), {
    code: 'FILE_ACCESS',
    message: /folder\.csv: it is a folder/,
  })
  await t.rejects(readExamples(join(folder, 'a.csv', 'b.csv'), COLUMNS), {
    code: 'FILE_ACCESS',
    message: /Check the path/,
  })
  await t.rejects(readExamples(join(folder, 'a.txt'), COLUMNS), {
    code: 'INVALID_ARGUMENT',
    message: /\.jsonl.*\.tsv.*'\.txt'/,
  })
  await t.rejects(readExamples(join(folder, 'a.csv'), { ...COLUMNS, limit: 0 }), { code: 'INVALID_ARGUMENT' })
})

t.test(
  'a file without read permission says so',
  { skip: process.getuid?.() === 0 && 'root may read all' },
  async (t) => {
    const file = join(t.testdir({ 'a.csv': 'text,label\n' }), 'a.csv')
    await chmod(file, 0o000)
    await t.rejects(readExamples(file, COLUMNS), { code: 'FILE_ACCESS', message: /permission was denied/ })
  },
)

t.test('a text of a million words is read in every format', async (t) => {
  const text = 'word '.repeat(1e6)
  const files: [string, string][] = [
    ['a.jsonl', JSON.stringify({ text, label: 1 })],
    ['a.csv', `text,label\n"${text}",1\n`],
    ['a.tsv', `text\tlabel\n${text}\t1\n`],
  ]
  for (const [name, content] of files) t.equal((await read(t, name, content))[0]?.text.length, text.length, name)
})

t.test('line numbers hold across the pieces a file is read in', async (t) => {
  const lines = Array.from(
    { length: 40_000 },
    (_, index) => `{"text":"${'x'.repeat(index % 90)}\u00e9","label":${index % 2}}`,
  )
  const rows = await read(t, 'a.jsonl', lines.join('\n'))
  t.equal(rows.length, lines.length)
  t.ok(rows.every((row, index) => row.line === index + 1 && row.text.length === (index % 90) + 1))
  lines[39_000] = 'broken'
  await t.rejects(read(t, 'b.jsonl', lines.join('\n')), { message: /b\.jsonl:39001: / })
  const bytes = Buffer.from(lines.join('\n'))
  bytes[bytes.indexOf('broken')] = 0xff
  await t.rejects(read(t, 'c.jsonl', bytes), { message: /c\.jsonl:39001: the line is not valid UTF-8/ })
})

const text = fc
  .string({ unit: 'binary', maxLength: 30 })
  .map((text) => Buffer.from(text).toString().replaceAll('\0', '0'))
const example = fc.record({ text, label: fc.constantFrom('a', '"b"', 'c,d', '7') }, { noNullPrototype: true })
const examples = fc.array(example, { minLength: 1, maxLength: 12 })

t.test('whatever a CSV or JSON Lines file holds is read back', async (t) => {
  const field = (value: string) => `"${value.replaceAll('"', '""')}"`
  const file = join(t.testdir(), 'a')
  await t.resolves(
    fc.assert(
      fc.asyncProperty(examples, fc.constantFrom('\n', '\r\n'), async (examples, newline) => {
        const csv = examples.map(({ text, label }) => `${field(text)},${field(label)}${newline}`)
        const lines = examples.map((example) => JSON.stringify(example) + newline)
        await writeFile(`${file}.csv`, `text,label${newline}${csv.join('')}`)
        await writeFile(`${file}.jsonl`, lines.join(''))
        for (const name of [`${file}.csv`, `${file}.jsonl`]) {
          const rows = await readExamples(name, COLUMNS)
          assert.deepEqual(
            rows.map(({ text, label }) => ({ text, label })),
            examples,
          )
        }
      }),
    ),
  )
})

t.test('whatever a TSV file holds is read back, tabs and line breaks aside', async (t) => {
  const file = join(t.testdir(), 'a.tsv')
  await t.resolves(
    fc.assert(
      fc.asyncProperty(examples, async (examples) => {
        const rows = examples.map(({ text, label }) => ({ text: text.replace(/[\t\r\n]/g, ' '), label }))
        await writeFile(file, `text\tlabel\n${rows.map(({ text, label }) => `${text}\t${label}\n`).join('')}`)
        const back = await readExamples(file, COLUMNS)
        assert.deepEqual(
          back.map(({ text, label }) => ({ text, label })),
          rows,
        )
      }),
    ),
  )
})
