import { mkdirSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { removeTemporaries } from '../../lib/files.js'
import { CheckpointStore } from '../../lib/train/checkpoint.js'
import { compileChild, killAfter, startChild } from '../children/child.js'

t.test('killed at any moment, the last finished checkpoint or a later one loads', async (t) => {
  const script = compileChild('save-checkpoints.ts', t.testdir())
  const folder = join(t.testdirName, 'checkpoints')
  mkdirSync(folder)
  for (let round = 0; round < 12; round++) {
    const lines = await killAfter(startChild(script, [folder]), Math.random() * 60)
    const lastSaved = Number(lines.at(-1))
    const { checkpoint, damaged } = await new CheckpointStore(folder).load()
    t.same(damaged, [], `round ${round}: nothing is half written`)
    const { nextStep } = checkpoint!.facts
    t.ok(nextStep >= lastSaved, `round ${round}: ${nextStep} loads, ${lastSaved} was the last one said`)
    for (const tensor of [checkpoint!.parameters.get('weight'), checkpoint!.optimizer.get('weight.mean')]) {
      t.ok((await tensor!.read()).every((value) => value === nextStep))
    }
    await checkpoint!.close()
    await removeTemporaries(folder)
  }
})
