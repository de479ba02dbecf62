import { join } from 'node:path'
import t from 'tap'
import { Ledger, readLedger } from '../../lib/privacy/ledger.js'
import { compileChild, killAfter, startChild } from '../children/child.js'

const digest = 'a'.repeat(64)

t.test('killed at any moment, the ledger opens at once and holds every step that was made', async (t) => {
  const folder = t.testdir()
  const script = compileChild('append-steps.ts', folder)
  const path = join(folder, 'ledger.jsonl')
  const ledger = await Ledger.create(path, {
    key: 'os',
    noiseMultiplier: 1.5,
    sampleRate: 0.01,
    plannedSteps: 1e6,
    relation: 'zero-out',
    configurationFingerprint: digest,
    dataFingerprint: digest,
    software: '0.1.0',
  })
  await ledger.close()
  for (let round = 0; round < 12; round++) {
    const lines = await killAfter(startChild(script, [path]), Math.random() * 60)
    const lastMade = Number(lines.at(-1))
    t.ok(lines.length > 0, `round ${round}: the child got the lock of the killed one`)
    t.ok((await readLedger(path)).steps > lastMade, `round ${round}: step ${lastMade} is recorded`)
    const reopened = await Ledger.open(path)
    t.ok(reopened.steps <= lastMade + 3, 'and at most one or two that were being made')
    await reopened.close()
  }
})
