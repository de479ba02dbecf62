import t from 'tap'
import { parseFrontMatter } from '../../lib/hub/front-matter.js'

const parse = (front: string) => parseFrontMatter(`---\n${front}\n---\n# A data set\n`)

t.test('the first document between the lines of dashes', async (t) => {
  for (const [front, value] of [
    ['a: b\nc: [1, {d: e}]', { a: 'b', c: [1, { d: 'e' }] }],
    ['a: b\r\nc: d', { a: 'b', c: 'd' }],
    ['a: "!x &y *z"\nb: it is *here*! & there', { a: '!x &y *z', b: 'it is *here*! & there' }],
    ['# first\na: b\n...\nc: d', { a: 'b' }],
    ['%YAML 1.2\n--- {a: b}\n...\n: [', { a: 'b' }],
    ['--- {a: b}\n--- {c: d}', { a: 'b' }],
    ['a: &x b\nc: !!str 1', { a: 'b', c: '1' }],
    ['', undefined],
    ['a: b: c', undefined],
    ['a: [b', undefined],
    ['a: &x b\nc: *x', undefined],
  ] as const) {
    t.same(await parse(front), value, front)
  }
  for (const readme of ['', '# none', 'a: b', '---\na: b']) t.equal(await parseFrontMatter(readme), undefined, readme)
})

t.test('any text takes bounded time and stack', async (t) => {
  const deep = { code: 'DATA_FORMAT', message: /nested in each other; at most 64 levels are read/ }
  for (const front of [
    `${'['.repeat(2000)}\n...\n${'- '.repeat(2000)}"a\n b"`,
    `${'- '.repeat(2000)}"a\n b"`,
    '? '.repeat(2000),
    '{a: '.repeat(2000),
    Array.from({ length: 200 }, (_, depth) => `${' '.repeat(depth)}a:`).join('\n'),
  ]) {
    await t.rejects(parse(front), deep, front.slice(0, 20))
  }
  t.ok(await parse(`${'['.repeat(60)}${']'.repeat(60)}`))
  const many = { code: 'DATA_FORMAT', message: /many tags, anchors or aliases; at most 100 are read/ }
  for (const front of [`a: ${'!x '.repeat(40_000)}`, `a: ${'&x '.repeat(40_000)}`, `[${'*x, '.repeat(40_000)}]`]) {
    await t.rejects(parse(front), many, front.slice(0, 20))
  }
  const long = { code: 'DATA_FORMAT', message: /front matter of \d+ characters; at most 1048576 are read/ }
  await t.rejects(parse(`a: ${'x'.repeat(2 ** 20)}`), long)
  t.match(await parse(`a: ${'x'.repeat(2 ** 20 - 3)}`), { a: /x/ })
})

t.test('one error is enough', async (t) => {
  const start = performance.now()
  for (const errors of [',', ']', '"']) t.equal(await parse(`a: [${errors.repeat(500_000)}]`), undefined)
  const took = performance.now() - start
  t.ok(took < 20_000, `${took} ms`)
})
