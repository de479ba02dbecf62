import { appendFileSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { MetricsLog, readMetrics } from '../../lib/train/metrics.js'

t.test('what is appended is read back in order', async (t) => {
  const path = join(t.testdir(), 'metrics.jsonl')
  const log = await MetricsLog.open(path)
  for (let step = 0; step < 100; step++) log.append({ step, loss: step / 3, loads: [step, 1] })
  await log.flush()
  t.equal((await readMetrics(path)).length, 100)
  log.append({ step: 100, loss: Number.NaN })
  await log.close()
  const records = await readMetrics(path)
  t.same(
    records.map(({ step }) => step),
    Array.from({ length: 101 }, (_, step) => step),
  )
  t.same(records[3], { step: 3, loss: 1, loads: [3, 1] })
  t.same(records[100], { step: 100, loss: null }, 'a number that is not finite is null')
})

t.test('a resumed run drops the steps it makes again, and a line cut short', async (t) => {
  const path = join(t.testdir(), 'metrics.jsonl')
  let log = await MetricsLog.open(path)
  for (let step = 0; step < 5; step++) log.append({ step, loss: 1 })
  await log.close()
  appendFileSync(path, '{"step":5,"lo')
  log = await MetricsLog.open(path, 3)
  log.append({ step: 3, loss: 2 })
  await log.close()
  t.same(await readMetrics(path), [
    { step: 0, loss: 1 },
    { step: 1, loss: 1 },
    { step: 2, loss: 1 },
    { step: 3, loss: 2 },
  ])
  t.ok(readFileSync(path, 'utf8').endsWith('}\n'))
})

t.test('no file, no records', async (t) => {
  t.same(await readMetrics(join(t.testdir(), 'none')), [])
  await t.rejects(MetricsLog.open(join(t.testdirName, 'none', 'metrics.jsonl')), { code: 'FILE_NOT_FOUND' })
})
