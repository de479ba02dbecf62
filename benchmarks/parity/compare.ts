// Holds dp-moe to what parity.py wrote: node --import tsx benchmarks/parity/compare.ts FOLDER...
// Each folder's model is loaded, compared, and written again beside it for `parity.py check`: as it is (saved/), with adapters in
// the layout of PEFT (adapters/), with these merged (merged/), and a BERT upcycled (upcycled/, upcycled-all/); the logits that
// dp-moe has for the last three are in NAME.logits.safetensors. Adapters that PEFT made (peft/) are merged and compared.

import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { saveAdapters } from '../../lib/models/hugging-face/adapters.js'
import { modelFingerprint } from '../../lib/models/hugging-face/fingerprint.js'
import { mergeModel } from '../../lib/models/merge.js'
import { writeSafetensors } from '../../lib/models/safetensors.js'
import { upcycle } from '../../lib/models/upcycle.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { setTrainable } from '../../lib/nn/trainable.js'
import {
  compute,
  differences,
  loadSubject,
  type ParityCase,
  readCase,
  readExpected,
} from '../../test/support/parity.js'
import { perturb } from '../../test/support/token-model.js'

const device = Device.open('cpu')

async function logitsOf(folder: string, parityCase: ParityCase): Promise<Float32Array> {
  const { model, logits } = await loadSubject(device, folder, parityCase)
  const scores = device.scope(() => logits(parityCase.sequences, { tape: new Tape(device), training: false }))
  const values = (await scores.data()) as Float32Array
  model[Symbol.dispose]()
  return values
}

/** Keeps what dp-moe computes with a model folder beside it. */
async function writeLogits(folder: string, parityCase: ParityCase): Promise<void> {
  const data = await logitsOf(folder, parityCase)
  await writeSafetensors(
    `${folder}.logits.safetensors`,
    new Map([['logits', { dtype: 'F32', shape: [data.length], data }]]),
  )
}

async function writeAdapted(folder: string, parityCase: ParityCase): Promise<void> {
  const { model } = await loadSubject(device, folder, parityCase)
  setTrainable(model, 'lora', new Initializer(device, 5), { head: /^(head|pooler)\./, rank: 2, alpha: 3 })
  for (const parameter of model.trainableParameters()) {
    const scale = 1 / Math.sqrt(parameter.shape.at(-1)!)
    parameter.tensor.write(
      Float32Array.from({ length: parameter.size }, (_, i) => scale * Math.sin(i * i + parameter.size)),
    )
  }
  const adapters = join(folder, 'adapters')
  await saveAdapters(adapters, model, { name: folder, fingerprint: await modelFingerprint(folder) })
  model[Symbol.dispose]()
  await mergeModel(device, adapters, join(folder, 'merged'), { overwrite: true, dtype: 'F32' })
  await writeLogits(join(folder, 'merged'), parityCase)
}

async function writeUpcycled(folder: string, parityCase: ParityCase): Promise<void> {
  for (const [name, options] of [
    ['upcycled', { numExperts: 3 }],
    ['upcycled-all', { numExperts: 4, expertsPerToken: 2, layers: 'all' }],
  ] as const) {
    const model = await upcycle(device, folder, options)
    // Equal experts would hide what a router does.
    perturb(device, model, 0.1)
    await model.savePretrained(join(folder, name))
    model[Symbol.dispose]()
    await writeLogits(join(folder, name), parityCase)
  }
}

async function compareMerged(folder: string, parityCase: ParityCase): Promise<string[]> {
  const adapters = join(folder, 'peft')
  if (!existsSync(adapters)) return []
  await mergeModel(device, adapters, join(folder, 'peft-merged'), { overwrite: true, dtype: 'F32' })
  const found = new Map([['logits', await logitsOf(join(folder, 'peft-merged'), parityCase)]])
  return differences(found, await readExpected(adapters)).map((line) => `merged from PEFT: ${line}`)
}

let failures = 0
for (const folder of process.argv.slice(2)) {
  const parityCase = await readCase(folder)
  const subject = await loadSubject(device, folder, parityCase)
  const found = differences(await compute(device, subject, parityCase), await readExpected(folder))
  await subject.model.savePretrained(join(folder, 'saved'))
  subject.model[Symbol.dispose]()
  await writeAdapted(folder, parityCase)
  if (parityCase.kind === 'bert') await writeUpcycled(folder, parityCase)
  found.push(...(await compareMerged(folder, parityCase)))
  if (found.length > 0) failures++
  console.log(`${found.length > 0 ? 'DIFFERS' : 'same'} ${folder}${found.map((line) => `\n  ${line}`).join('')}`)
}
device.close()
process.exitCode = failures > 0 ? 1 : 0
