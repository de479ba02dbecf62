// Holds dp-moe to what parity.py wrote: node --import tsx benchmarks/parity/compare.ts FOLDER...
// Each folder's model is loaded, compared, and saved again beside it (FOLDER/saved), for `parity.py check`.

import { join } from 'node:path'
import { Device } from '../../lib/engine/device.js'
import { compute, differences, loadSubject, readCase, readExpected } from '../../test/support/parity.js'

const device = Device.open('cpu')
let failures = 0
for (const folder of process.argv.slice(2)) {
  const parityCase = await readCase(folder)
  const subject = await loadSubject(device, folder, parityCase)
  const found = differences(await compute(device, subject, parityCase), await readExpected(folder))
  await subject.model.savePretrained(join(folder, 'saved'))
  subject.model[Symbol.dispose]()
  if (found.length > 0) failures++
  console.log(`${found.length > 0 ? 'DIFFERS' : 'same'} ${folder}${found.map((line) => `\n  ${line}`).join('')}`)
}
device.close()
process.exitCode = failures > 0 ? 1 : 0
