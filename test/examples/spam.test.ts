import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import t from 'tap'
import { mailText } from '../../examples/spam/mails.js'
import { majorityAccuracy, prepareMails } from '../../examples/spam/prepare.js'
import { labelsFound, readExamples, splitByText } from '../../lib/data/index.js'

t.test('the corpus gives 5,924 mails, split by the public rule into files that read back', async (t) => {
  const folder = join(t.testdir(), 'runs', 'data')
  let progress = [0, 0]
  const prepared = await prepareMails(folder, { onProgress: (parsed, total) => (progress = [parsed, total]) })
  t.same(progress, [6046, 6046])
  t.equal(prepared.training, 4759)
  t.equal(prepared.validation, 1165)
  t.equal(prepared.majority.toFixed(4), '0.6833')

  const columns = { text: 'text', label: 'label' }
  const training = await readExamples(prepared.trainingFile, columns)
  const validation = await readExamples(prepared.validationFile, columns)
  t.equal(training.length, prepared.training)
  t.equal(validation.length, prepared.validation)
  t.same(labelsFound(training, prepared.trainingFile).names, ['ham', 'spam'])

  const texts = [...training, ...validation].map(({ text }) => text)
  t.equal(new Set(texts).size, 5924, 'no text is there twice')
  t.equal(splitByText(texts, 0.2).training.at(-1), training.length - 1, 'each text is on the side of the rule')
  t.notOk(
    texts.some((text) => /^(Received|Return-Path|Message-Id):/i.test(text)),
    'no mail starts with its headers',
  )
  t.equal((await readFile(prepared.trainingFile, 'utf8')).split('\n').length, prepared.training + 1)
})

t.test('the text of a mail is its subject and plain body, or its HTML as text', async (t) => {
  t.equal(mailText({ subject: 'Hi', text: 'plain', html: '<b>html</b>' }), 'Hi\nplain')
  t.equal(mailText({ subject: 'Hi', text: ' \n', html: '<p>one</p><script>no()</script><p>two</p>' }), 'Hi\none\n\ntwo')
  t.equal(mailText({ html: '<p>no subject' }), '\nno subject')
  t.equal(mailText({}), '\n')
})

t.test('the majority is the training mails\u2019, its accuracy the validation mails\u2019', async (t) => {
  const mails = (...labels: ('ham' | 'spam')[]) => labels.map((label) => ({ text: '', label }))
  t.equal(majorityAccuracy(mails('spam', 'spam', 'ham'), mails('ham', 'ham', 'ham', 'spam')), 0.25)
  t.equal(majorityAccuracy(mails('ham', 'ham', 'spam'), mails('ham', 'spam')), 0.5)
})
