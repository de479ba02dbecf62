import { existsSync, mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import t from 'tap'
import { canMount } from '../children/child.js'
import { refused, TestCli } from './support/cli.js'
import { SMALL, writeMails } from './support/mails.js'

const cli = new TestCli()
const folder = mkdtempSync(join(tmpdir(), 'dp-moe-bad-data-'))
const output = join(folder, 'run')
t.teardown(() => {
  cli.remove()
  rmSync(folder, { recursive: true })
})

function file(name: string, content: string | Uint8Array): string {
  const path = join(folder, name)
  writeFileSync(path, content)
  return path
}

const good = writeMails(folder, 'mails.jsonl', 60)
const row = (text: string, label: string) => `${JSON.stringify({ text, label })}\n`
const rows = row('a', 'x') + row('b', 'y')

t.test('training data that is wrong: one line with the place, exit code 1, no folder made', async (t) => {
  for (const [name, path, flags, says] of [
    ['missing file', join(folder, 'none.csv'), [], /Cannot read .*none\.csv: it does not exist/],
    ['a folder', folder, [], /dp-moe-bad-data/],
    ['unknown extension', file('mails.txt', rows), [], /mails\.txt: .*\.jsonl/],
    [
      'missing column',
      good,
      ['--text', 'body'],
      /mails\.jsonl:1: there is no column 'body'; the columns are 'text', 'label'/,
    ],
    ['missing label column', good, ['--label', 'class'], /there is no column 'class'/],
    ['a label that was not stated', good, ['--labels', 'spam,news'], /mails\.jsonl:2: the label 'ham' is unknown/],
    ['empty file', file('empty.jsonl', ''), [], /empty\.jsonl: the file is empty/],
    ['empty table', file('empty.csv', ''), [], /empty\.csv: the file is empty/],
    ['header only', file('header.tsv', 'text\tlabel\n'), [], /header\.tsv: the file has a header but no rows/],
    ['a line that is not JSON', file('bad.jsonl', `${rows}{"text": \n`), [], /bad\.jsonl:3: the line is not JSON/],
    ['NaN', file('nan.jsonl', `${rows}{"text": NaN, "label": "x"}\n`), [], /nan\.jsonl:3: the line is not JSON/],
    [
      'a number for a text',
      file('number.jsonl', `${rows}{"text": 1, "label": "x"}\n`),
      [],
      /number\.jsonl:3: 'text' is a number/,
    ],
    [
      'bad UTF-8',
      file('latin.jsonl', Buffer.from(`${rows}{"text":"\u00e9"}\n`, 'latin1')),
      [],
      /latin\.jsonl:3: .*UTF-8/,
    ],
    ['NUL bytes', file('nul.csv', 'text,label\na\0,x\n'), [], /nul\.csv:2: .*NUL/],
    ['one class only', file('one.csv', 'text,label\na,x\nb,x\n'), [], /one\.csv: every row has the label 'x'/],
    [
      'control characters in the data',
      file('escape.jsonl', '\u001b[31mred\n'),
      [],
      /escape\.jsonl:1: the line is not JSON/,
    ],
    ['a tokenizer that is none', good, ['--tokenizer', good], /mails\.jsonl/],
    ['a key file that is missing', good, ['--key-file', join(folder, 'nokey')], /nokey/],
  ] as const) {
    await t.test(name, async (t) => {
      const args = ['train', '--train', path, '--output', output, '--target-epsilon', '3', ...flags, ...SMALL]
      const finished = await cli.fail(t, args)
      const { stderr } = finished
      const failure = stderr.slice(stderr.indexOf('dp-moe: '))
      refused(t, { ...finished, stderr: failure }, 1, says)
      t.notMatch(stderr, '\u001b')
      t.notOk(existsSync(output), 'nothing was made')
    })
  }
})

t.test('values out of range: one line in the names of the flags, exit code 1, no folder made', async (t) => {
  for (const [flags, says] of [
    [['--target-epsilon', '0'], /--target-epsilon, got 0/],
    [['--target-epsilon', '-1'], /--target-epsilon, got -1/],
    [['--noise-multiplier', '0'], /--noise-multiplier, got 0/],
    [['--target-epsilon', '3', '--target-delta', '0'], /--target-delta, got 0/],
    [['--target-epsilon', '3', '--target-delta', '1'], /--target-delta, got 1/],
    [['--target-epsilon', '3', '--sample-rate', '1.5'], /--sample-rate, got 1\.5/],
    [['--target-epsilon', '3', '--max-grad-norm', '-1'], /--max-grad-norm, got -1/],
    [['--target-epsilon', '3', '--epochs', '0'], /--epochs, got 0/],
    [['--target-epsilon', '3', '--steps', '0'], /--steps, got 0/],
    [['--target-epsilon', '3', '--expected-batch-size', '-5'], /--expected-batch-size, got -5/],
    [['--target-epsilon', '3', '--learning-rate', '0'], /--learning-rate, got 0/],
    [['--target-epsilon', '3', '--max-length', '0'], /--max-length, got 0/],
    [['--target-epsilon', '3', '--threads', '0'], /--threads, got 0/],
    [['--target-epsilon', '3', '--validation', '1.5'], /validation fraction, got 1\.5/],
    [['--target-epsilon', '3', '--model', 'numExperts=0'], /numExperts/],
    [['--target-epsilon', '3', '--model', 'experts=2'], /experts/],
  ] as const) {
    await t.test(flags.join(' '), async (t) => {
      const finished = await cli.fail(t, ['train', '--train', good, '--output', output, ...flags])
      refused(t, { ...finished, stderr: finished.stderr.slice(finished.stderr.indexOf('dp-moe: ')) }, 1, says)
      t.notOk(existsSync(output), 'nothing was made')
      rmSync(output, { recursive: true, force: true })
    })
  }
})

t.test('a folder that cannot be the output: one line, exit code 1, nothing changed', async (t) => {
  mkdirSync(join(folder, 'full/of'), { recursive: true })
  for (const [path, says] of [
    [join(folder, 'full'), /The output folder .*full is not empty \(of\)/],
    [good, /mails\.jsonl is a file/],
    [join(good, 'run'), /Cannot create .*ENOTDIR/],
  ] as const) {
    const args = ['train', '--train', good, '--output', path, '--target-epsilon', '3', ...SMALL]
    const { code, stdout, stderr } = await cli.run(args)
    t.match({ code, stdout }, { code: 1, stdout: '' })
    t.match(stderr, says)
  }
})

const readOnly = ['unshare', '-rm', 'sh', '-c', 'mount -t tmpfs -o ro tmpfs "$0" && exec "$@"']

t.test('a read-only folder', { skip: !canMount(folder) && 'mounting needs user namespaces' }, async (t) => {
  const disk = join(folder, 'disk')
  mkdirSync(disk)
  const args = ['train', '--train', good, '--output', join(disk, 'run'), '--target-epsilon', '3', ...SMALL]
  const { code, stdout, stderr } = await cli.run(args, { prefix: [...readOnly, disk] })
  t.match({ code, stdout }, { code: 1, stdout: '' })
  t.match(stderr, /^dp-moe: Cannot create .*disk.*read-only[^\n]*\n$/m)
})
