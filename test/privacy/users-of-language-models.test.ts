import { cpSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { packBatch } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import { Decoder } from '../../lib/models/decoder.js'
import { type CausalBatch, causalBatch, type Seq2SeqBatch, seq2seqBatch } from '../../lib/models/language-batch.js'
import { SwitchTransformer } from '../../lib/models/switch-transformer.js'
import type { LossFunction, UnitBatch } from '../../lib/nn/accumulate.js'
import type { Module } from '../../lib/nn/module.js'
import { plainGradients, rowsOfUnit, type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'

// A user with several texts: the loss is the mean of the texts' losses, each as if it were alone, whatever experts, capacity
// and router losses there are.

const fixtures = fileURLToPath(new URL('../parity/fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())
const random = stepRandom(device)

interface Text {
  readonly source: readonly number[]
  readonly target: readonly number[]
}
interface User {
  readonly unit: number
  readonly texts: readonly Text[]
}

const tokens = (length: number, from: number) => Array.from({ length }, (_, i) => 2 + ((from + 7 * i + i * i) % 28))
const text = (source: number, target: number, from: number): Text => ({
  source: tokens(source, from),
  target: tokens(target, from + 3),
})
const users: User[] = [
  { unit: 4, texts: [text(9, 5, 1), text(3, 8, 5), text(0, 0, 2)] },
  { unit: 7, texts: [text(12, 2, 3)] },
  { unit: 8, texts: [text(6, 6, 11), text(7, 1, 9)] },
]

const pack = (users: readonly User[], side: keyof Text) =>
  packBatch(
    users.map(({ unit, texts }) => ({
      unit,
      ids: Int32Array.from(texts.flatMap((one) => one[side])),
      sequences: Int32Array.from(texts, (one) => one[side].length),
    })),
  )

interface Case<B extends UnitBatch> {
  readonly model: Module
  readonly loss: LossFunction<B>
  readonly batch: (users: readonly User[]) => B
}

function check<B extends UnitBatch>(name: string, make: () => Promise<Case<B>>): void {
  t.test(name, async (t) => {
    const { model, loss, batch } = await make()
    const subject: Subject<User, B> = { device, module: model, loss, batch }
    const norms = await squaredNormsByParameter(subject, users, random)
    for (const [index, user] of users.entries()) {
      const whole = await plainGradients(subject, [user], random)
      const alone: Map<string, Float64Array>[] = []
      for (const one of user.texts) alone.push(await plainGradients(subject, [{ unit: 1, texts: [one] }], random))
      let difference = 0
      let size = 0
      for (const [parameter, values] of whole) {
        let own = 0
        for (const [i, value] of values.entries()) {
          const mean = alone.reduce((sum, gradients) => sum + gradients.get(parameter)![i]!, 0) / alone.length
          difference += (value - mean) ** 2
          own += mean ** 2
        }
        size += own
        const norm = norms.get(parameter)![index]!
        t.ok(Math.abs(norm - own) <= 3e-3 * own + 1e-9, `${parameter} of user ${index}: ${norm} for ${own}`)
      }
      t.ok(size > 0)
      t.ok(Math.sqrt(difference / size) < 1e-5, `user ${index} is off by ${Math.sqrt(difference / size)}`)
    }
    const first = await rowsOfUnit(subject, users, 1, random)
    const others = [{ unit: 5, texts: [text(40, 9, 8), text(1, 2, 4)] }, users[1]!, { unit: 9, texts: [] }]
    t.strictSame(await rowsOfUnit(subject, others, 1, random), first, 'the same bits whoever else is in the batch')
  })
}

// Without jitter: it is drawn by the row in the unit, so that a text alone has another one.
const folder = join(t.testdir({}), 'switch')
cpSync(join(fixtures, 'switch-capacity-untied'), folder, { recursive: true })
const config = JSON.parse(readFileSync(join(folder, 'config.json'), 'utf8'))
writeFileSync(join(folder, 'config.json'), JSON.stringify({ ...config, router_jitter_noise: 0 }))

for (const capacityPerSequence of [0, 1, 2]) {
  check<Seq2SeqBatch>(`Switch Transformer, capacity ${capacityPerSequence}`, async () => {
    const options = { capacityPerSequence, balanceLoss: 0.3, zLoss: 0.1 }
    const model = await SwitchTransformer.fromPretrained(device, folder, options)
    const batch = (users: readonly User[]) => seq2seqBatch(device, pack(users, 'source'), pack(users, 'target'), 0)
    return { model, loss: model.loss.bind(model), batch }
  })
}

for (const name of ['mixtral', 'olmoe-clip-norm', 'qwen3-moe-every-second']) {
  check<CausalBatch>(name, async () => {
    const model = await Decoder.fromPretrained(device, join(fixtures, name), { balanceLoss: 0.3 })
    const batch = (users: readonly User[]) => causalBatch(device, pack(users, 'source'))
    return { model, loss: model.loss.bind(model), batch }
  })
}
