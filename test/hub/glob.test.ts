import t from 'tap'
import { GlobBudget, globTest } from '../../lib/hub/glob.js'

const matches = (glob: string, path: string) => globTest([glob], new GlobBudget())(path)

t.test('what a pattern matches', (t) => {
  for (const [glob, yes, no] of [
    ['a/b.csv', ['a/b.csv'], ['a/b.csv2', 'xa/b.csv', 'a/b']],
    ['./a/*', ['a/b.csv', 'a/'], ['a/b/c.csv', 'a']],
    ['a/b-*.csv', ['a/b-.csv', 'a/b-1-2.csv', 'a/b-1.csv.csv'], ['a/b.csv', 'a/b-1.tsv', 'a/b-1/2.csv']],
    ['**', ['a', 'a/b/c', ''], []],
    ['a/**', ['a/b', 'a/b/c'], ['a', 'b/a/c']],
    ['a**c', ['ac', 'abc', 'a/b/c'], ['ab', 'bc']],
    ['**/c', ['c', 'b/c', 'a/b/c'], ['bc', 'a/bc', 'c/d']],
    ['a/**/c', ['a/c', 'a/b/c', 'a/b/b/c'], ['ac', 'a/bc', 'b/a/c']],
    ['a/***', ['a/', 'a/b', 'a/b/c'], ['a', 'b/a/c']],
    ['a/****b', ['a/b', 'a/xb', 'a/x/b'], ['a', 'a/bc']],
    ['a/***/c', ['a/b/c', 'a//c'], ['a/c', 'a/bc']],
    ['**/**/c', ['c', 'a/c', 'a/b/c'], ['bc']],
    ['**/*.csv', ['a.csv', 'a/b.csv'], ['a.tsv', 'a.csv/b']],
    ['*/*', ['a/b', '/'], ['a', 'a/b/c']],
    ['a*x**', ['ax', 'abxc'], ['ab', 'a']],
    ['a?c', ['abc', 'a*c'], ['ac', 'a/c', 'abbc', 'ab']],
    ['x[0-25]', ['x0', 'x1', 'x2', 'x5'], ['x3', 'x', 'x01', 'x-']],
    ['x[!0-2]*', ['x3', 'xab', 'x-'], ['x0', 'x', 'x2a']],
    ['x[', ['x['], ['x', 'xa']],
    ['', [''], ['a']],
  ] as const) {
    for (const path of yes) t.equal(matches(glob, path), true, `${glob} ${path}`)
    for (const path of no) t.equal(matches(glob, path), false, `${glob} ${path}`)
  }
  const several = globTest(['a', 'b/*'], new GlobBudget())
  t.same(['a', 'b/c', 'c', 'b'].map(several), [true, true, false, false])
  t.end()
})

t.test('a pattern of any kind takes bounded time', (t) => {
  const paths = Array.from({ length: 100 }, (_, i) => `data/${'a'.repeat(250)}${i}.csv`)
  for (const one of ['*', '**', '*?', '**a', '**/', '*a', '?*', '[a-b]*', '*/']) {
    for (const end of ['', 'b']) {
      const glob = `data/${one.repeat(1000 / one.length)}${end}`
      const start = performance.now()
      const test = globTest([glob], new GlobBudget())
      for (const path of paths) test(path)
      const took = performance.now() - start
      t.ok(took < 5000, `${glob.slice(0, 12)} ${took} ms`)
    }
  }
  t.end()
})

t.test('patterns that are too long, or too many for the paths there are', (t) => {
  const longest = `data/${'*'.repeat(1019)}`
  t.ok(matches(longest, 'data/train.csv'))
  t.throws(() => matches(`${longest}*`, 'x'), { code: 'DATA_FORMAT', message: /has 1025 characters, expected at most/ })
  const budget = new GlobBudget(1e6)
  const test = globTest(
    Array.from({ length: 1000 }, (_, i) => `${'*a'.repeat(200)}${i}`),
    budget,
  )
  const message = /take too long to match\. Name files that hold the data instead/
  t.throws(() => test('a'.repeat(200)), { code: 'DATA_FORMAT', message })
  t.throws(() => globTest(['a'], budget)('a'), { code: 'DATA_FORMAT' }, 'the patterns of a card share it')
  const shards = Array.from({ length: 5e4 }, (_, i) => `data/part-${i % 500}/train-${i}.parquet`)
  const honest = globTest(['data/**/*.parquet', ...shards.slice(0, 3000)], new GlobBudget())
  t.equal(shards.filter(honest).length, 5e4, 'a large data set is within it')
  t.end()
})
