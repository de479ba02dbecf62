import t from 'tap'
import { encodeLabels, LabelSet, labelsFound, requireSeveralClasses, sortLabels } from '../../lib/data/index.js'

const rows = (...labels: string[]) => labels.map((label, index) => ({ text: '', label, line: index + 2 }))

t.test('labels are sorted as numbers when all are integers, else by code units', async (t) => {
  t.same(sortLabels(['10', '9', '-1', '0']), ['-1', '0', '9', '10'])
  t.same(sortLabels(['10', '9', 'b', 'B', '\u00e4']), ['10', '9', 'B', 'b', '\u00e4'])
  t.same(sortLabels(['01', '1', '0']), ['0', '01', '1'])
  t.same(sortLabels(['1.5', '10', '2']), ['1.5', '10', '2'])
})

t.test('labels found in the data are not stated ones', async (t) => {
  const labels = labelsFound(rows('spam', 'ham', 'spam'), 'mail.csv')
  t.same(labels.names, ['ham', 'spam'])
  t.equal(labels.stated, false)
  t.equal(new LabelSet(['ham', 'spam']).stated, true)
  t.same(encodeLabels(rows('spam', 'ham', 'spam'), labels, 'mail.csv'), Int32Array.of(1, 0, 1))
})

t.test('a stated list keeps its order', async (t) => {
  const labels = new LabelSet(['spam', ' ham '])
  t.same(labels.names, ['spam', 'ham'])
  t.equal(labels.size, 2)
  t.equal(labels.indexOf('ham'), 1)
  t.equal(labels.indexOf('eggs'), undefined)
})

t.test('an unknown label is named with its line and the known ones', async (t) => {
  const labels = new LabelSet(['ham', 'spam'])
  t.throws(() => encodeLabels(rows('ham', 'eggs'), labels, 'mail.csv'), {
    code: 'DATA_FORMAT',
    message:
      "mail.csv:3: the label 'eggs' is unknown; the known labels are 'ham', 'spam'. Correct it, remove the row, or add it to the stated labels before training",
  })
  const many = new LabelSet(Array.from({ length: 30 }, (_, index) => `class ${index}`))
  t.throws(() => encodeLabels(rows('eggs'), many, 'mail.csv'), { message: /'class 19' and 10 more\./ })
})

t.test('one class only is refused, found or stated', async (t) => {
  const message = "mail.csv: every row has the label 'ham'. Training needs rows of two classes or more"
  t.throws(() => labelsFound(rows('ham', 'ham'), 'mail.csv'), { code: 'DATA_FORMAT', message })
  const labels = new LabelSet(['spam', 'ham'])
  t.throws(() => requireSeveralClasses(Int32Array.of(1, 1), labels, 'mail.csv'), { code: 'DATA_FORMAT', message })
  t.throws(() => requireSeveralClasses(new Int32Array(0), labels, 'mail.csv'), { message: /no labels/ })
  t.doesNotThrow(() => requireSeveralClasses(Int32Array.of(1, 0), labels, 'mail.csv'))
})

t.test('a column of texts is not taken for labels', async (t) => {
  const many = rows(...Array.from({ length: 1001 }, (_, index) => `text ${index}`))
  t.throws(() => labelsFound(many, 'mail.csv'), { code: 'DATA_FORMAT', message: /holds 1001 different labels/ })
})

t.test('lists that name no classes are refused', async (t) => {
  for (const names of [[], ['ham'], ['ham', 'ham'], ['ham', ' ham'], ['ham', ' ']]) {
    t.throws(() => new LabelSet(names), { code: 'INVALID_ARGUMENT', message: /two or more different names/ })
  }
})
