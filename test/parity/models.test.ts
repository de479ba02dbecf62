import { readdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { compute, differences, loadSubject, readCase, readExpected } from '../support/parity.js'

// What transformers computed on tiny random checkpoints; benchmarks/parity/parity.py makes them.

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const entries = await readdir(fixtures, { withFileTypes: true })
for (const { name } of entries.filter((entry) => entry.isDirectory())) {
  t.test(`${name}: logits, losses and gradients are those of transformers`, async (t) => {
    const folder = `${fixtures}${name}`
    const parityCase = await readCase(folder)
    const subject = await loadSubject(device, folder, parityCase)
    const actual = await compute(device, subject, parityCase)
    const expected = await readExpected(folder)
    t.strictSame(differences(actual, expected), [])
    t.ok(expected.size > 10)
    subject.model[Symbol.dispose]()
  })
}
