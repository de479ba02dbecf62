import { PassThrough } from 'node:stream'
import t from 'tap'
import { DownloadBar } from '../../lib/cli/hub-model.js'
import { duration, shortNumber } from '../../lib/cli/output.js'
import { facts, progressView } from '../../lib/cli/progress.js'

const progress = { step: 3, steps: 10, loss: 0.4567, examplesPerSecond: 12345.6, epsilon: 1.234, secondsLeft: 75 }

/** A stream that remembers, with as much of a terminal as the bar asks for. */
function terminal(isTTY: boolean): { stream: NodeJS.WriteStream; written: () => string } {
  const stream = Object.assign(new PassThrough(), {
    isTTY,
    columns: 120,
    rows: 20,
    cursorTo() {},
    clearLine() {},
    moveCursor() {},
  })
  const pieces: string[] = []
  stream.on('data', (piece: Buffer) => pieces.push(piece.toString()))
  return { stream: stream as unknown as NodeJS.WriteStream, written: () => pieces.join('') }
}

t.test('loss, speed, budget and time left', async (t) => {
  t.equal(facts(progress), 'loss 0.457, 12,346 examples/s, eps 1.23, 1 min 15 s left')
  t.equal(facts({ ...progress, epsilon: undefined, step: 10 }), 'loss 0.457, 12,346 examples/s')
  t.equal(
    facts({ ...progress, loss: Number.NaN, epsilon: Number.POSITIVE_INFINITY, secondsLeft: Number.POSITIVE_INFINITY }),
    'loss unknown, 12,346 examples/s, eps infinite',
  )
})

t.test('a bar with the messages above it', async (t) => {
  const { stream, written } = terminal(true)
  const view = progressView({ bar: true, stream, title: 'private' })
  view.message({ level: 'warning', text: 'delta is large' })
  view.update(progress)
  view.message({ level: 'info', text: 'late' })
  view.update({ ...progress, step: 10 })
  view.stop()
  t.match(written(), /late\n/)
  t.match(written(), /warning: delta is large\n/)
  t.match(written(), /private .+ 10\/10 {2}loss 0\.457, 12,346 examples\/s, eps 1\.23/)
})

t.test('without a terminal: a line at the end, and not one for every step', async (t) => {
  const { stream, written } = terminal(false)
  const view = progressView({ bar: false, stream })
  view.message({ level: 'info', text: 'batch 64' })
  for (let step = 1; step <= 10; step++) view.update({ ...progress, step })
  view.stop()
  t.equal(written(), 'batch 64\ntraining: step 10 of 10, loss 0.457, 12,346 examples/s, eps 1.23\n')
})

t.test('a download: the file, and the share of all bytes', async (t) => {
  const { stream, written } = terminal(true)
  const bar = new DownloadBar(stream)
  bar.update({ file: 'config.json', fileBytes: 500_000, bytes: 500_000, totalBytes: 2_000_000 })
  bar.update({ file: 'model.safetensors', fileBytes: 1_500_000, bytes: 2_000_000, totalBytes: 2_000_000 })
  bar.stop()
  t.match(written(), /downloading config\.json \S+ 0 % of 2\.0 MB/)
  t.match(written(), /downloading model\.safetensors \S+ 100 % of 2\.0 MB/)
  const unused = terminal(true)
  new DownloadBar(unused.stream).stop()
  t.equal(unused.written(), '', 'nothing where nothing is downloaded')
})

t.test('numbers: six digits, bounds to their safe side', async (t) => {
  t.equal(shortNumber(1.23456789), '1.23457')
  t.equal(shortNumber(1.23456789, 'down'), '1.23456')
  t.equal(shortNumber(1.23456123, 'up'), '1.23457')
  t.equal(shortNumber(0.99999999, 'up'), '1')
  t.equal(shortNumber(0.1, 'up'), '0.1')
  t.equal(shortNumber(1.00000001e-5, 'up'), '1.00001e-5')
  t.equal(shortNumber(1e-5), '1e-5')
  t.equal(shortNumber(1234567, 'up'), '1234570')
  t.equal(shortNumber(0), '0')
  t.equal(shortNumber(Number.POSITIVE_INFINITY), 'infinite')
})

t.test('durations', async (t) => {
  t.same([0.04, 9.94, 41.2, 59.6, 185, 7800].map(duration), [
    '0.0 s',
    '9.9 s',
    '41 s',
    '1 min 0 s',
    '3 min 5 s',
    '2 h 10 min',
  ])
})
