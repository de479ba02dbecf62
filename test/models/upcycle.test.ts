import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import t from 'tap'
import { meanPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { LoadEstimate } from '../../lib/autograd/load-balance.js'
import { route } from '../../lib/autograd/routing.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { upcycle } from '../../lib/models/upcycle.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { MixtureOfExperts } from '../../lib/nn/mixture-of-experts.js'
import { tinyBert } from '../support/bert.js'
import { batchOf, type Example, examples } from '../support/models.js'
import { type Subject, squaredNormsByParameter, stepRandom, writtenSquaredNorms } from '../support/sites.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())
const root = t.testdir()
const folder = join(root, 'dense')
const units = examples([5, 9, 1, 17])

const dense = new BertClassifier(new Initializer(device, 1), { ...tinyBert, numLayers: 4 })
perturb(device, dense, 0.1)
await dense.savePretrained(folder)

const logits = (model: BertClassifier) =>
  device.scope(() =>
    model.logits(batchOf(device, units), { tape: new Tape(device), training: false }).data(),
  ) as Promise<Float32Array>
const difference = (a: Float32Array, b: Float32Array) =>
  a.reduce((most, x, i) => Math.max(most, Math.abs(x - b[i]!)), 0)

t.test('an upcycled model computes what the dense one does, whatever the router', async (t) => {
  const before = await logits(dense)
  for (const options of [{ numExperts: 8 }, { numExperts: 4, expertsPerToken: 2, layers: 'all', seed: 3 }] as const) {
    using model = await upcycle(device, folder, options)
    t.ok(difference(await logits(model), before) < 1e-5, JSON.stringify(options))
    const mixtures = model.encoder.layers.map(({ feedForward }) => feedForward instanceof MixtureOfExperts)
    t.same(mixtures, 'layers' in options ? [true, true, true, true] : [false, true, false, true])
    const saved = join(root, `saved-${options.numExperts}`)
    await model.savePretrained(saved)
    const config = JSON.parse(readFileSync(join(saved, 'config.json'), 'utf8'))
    t.match(config, { model_type: 'bert_moe', num_experts: options.numExperts })
    using again = await BertClassifier.fromPretrained(device, saved)
    t.ok((await logits(again)).every((x, i) => Object.is(x, before[i]!) || Math.abs(x - before[i]!) < 1e-5))
    t.same(again.config, model.config)
    await t.rejects(upcycle(device, saved, { numExperts: 2 }), /expected a dense model/)
  }
})

t.test('what is refused', async (t) => {
  for (const numExperts of [0, 1, 2.5]) await t.rejects(upcycle(device, folder, { numExperts }), /numExperts/)
  await t.rejects(upcycle(device, folder, { numExperts: 4, expertsPerToken: 5 }), /expertsPerToken/)
  await t.rejects(upcycle(device, join(root, 'nothing'), { numExperts: 4 }), { code: 'FILE_NOT_FOUND' })
  using model = await upcycle(device, folder, { numExperts: 4 })
  const saved = join(root, 'broken')
  await model.savePretrained(saved)
  const path = join(saved, 'config.json')
  const config = JSON.parse(readFileSync(path, 'utf8'))
  for (const [change, message] of [
    [{ num_experts: undefined }, /num_experts/],
    [{ moe_layers: [9] }, /moe_layers: expected layers from 0 to 3/],
    [{ moe_layers: [1, 1] }, /moe_layers: a layer is there twice/],
    [{ num_experts_per_tok: 9 }, /num_experts_per_tok/],
    [{ num_experts: 3 }, /unexpected tensor .*experts\.3\./],
    [{ model_type: 'bert' }, /unexpected tensor .*mixture/],
  ] as const) {
    writeFileSync(path, JSON.stringify({ ...config, ...change }))
    await t.rejects(
      BertClassifier.fromPretrained(device, saved),
      { code: 'MODEL_FORMAT', message },
      JSON.stringify(change),
    )
  }
})

t.test('a gate of 1 teaches the router as p / (p held constant) does', async (t) => {
  const layout = new UnitLayout(device, Int32Array.of(0, 2, 3), Int32Array.of(0, 1))
  const values = [0.3, -1, 2, 0.7, 0.1, 0.2, -0.4, 0.9, 0.5, 0.5, 0.5, 0.4]
  await device.scopeAsync(async () => {
    for (const straightThrough of [true, false]) {
      const tape = new Tape(device, { add: () => [] })
      const scores = tape.watch(device.tensor(Float32Array.from(values), [3, 4]).withLayout(layout))
      const { gate } = route(tape, scores, {
        expertsPerToken: 1,
        normalize: true,
        capacityPerSequence: 0,
        straightThrough,
      })
      t.same([...(await gate.data())], [1, 1, 1])
      const flat = gate.reshape([3]).withLayout(layout)
      tape.record([flat], [gate], [], ([dy]) => tape.addGradient(gate, dy!.reshape([3, 1]).withLayout(layout)))
      tape.backward(meanPerUnit(tape, flat))
      const gradient = (await tape.gradientOf(scores)!.data()) as Float32Array
      for (let row = 0; row < 3; row++) {
        const own = values.slice(4 * row, 4 * row + 4)
        const sum = own.reduce((all, value) => all + Math.exp(value), 0)
        const best = own.indexOf(Math.max(...own))
        const weight = row < 2 ? 0.5 : 1
        for (let expert = 0; expert < 4; expert++) {
          const expected = straightThrough ? weight * ((expert === best ? 1 : 0) - Math.exp(own[expert]!) / sum) : 0
          t.ok(Math.abs(gradient[4 * row + expert]! - expected) < 1e-6, `row ${row}, expert ${expert}`)
        }
      }
    }
  })
})

t.test('a head on the mean over the tokens of a text', async (t) => {
  using model = await BertClassifier.fromPretrained(device, folder, { pooling: 'mean' })
  t.equal(model.pooler, undefined, 'the pooler of the checkpoint is passed over')
  const context = { tape: new Tape(device), training: false }
  const rows = (await device.scope(() =>
    model.encoder.forward(batchOf(device, units), context).y.data(),
  )) as Float32Array
  const weight = (await model.head.weight.tensor.data()) as Float32Array
  const bias = (await model.head.bias!.tensor.data()) as Float32Array
  const got = await logits(model)
  let first = 0
  for (const [index, { ids }] of units.entries()) {
    for (let label = 0; label < 3; label++) {
      let expected = bias[label]!
      for (let row = first; row < first + ids.length; row++) {
        for (let i = 0; i < 12; i++) expected += (rows[12 * row + i]! * weight[12 * label + i]!) / ids.length
      }
      t.ok(Math.abs(got[3 * index + label]! - expected) < 1e-5, `text ${index}, label ${label}`)
    }
    first += ids.length
  }
  const saved = join(root, 'mean')
  await model.savePretrained(saved)
  const config = JSON.parse(readFileSync(join(saved, 'config.json'), 'utf8'))
  t.match(config, { classifier_pooling: 'mean', architectures: ['BertModel'] })
  using again = await BertClassifier.fromPretrained(device, saved)
  t.same(await logits(again), got)
  using mixture = await upcycle(device, saved, { numExperts: 3 })
  t.ok(difference(await logits(mixture), got) < 1e-5, 'upcycling keeps it')
})

for (const pooling of ['cls', 'mean'] as const) {
  t.test(`norms, and what trains: ${pooling}`, async (t) => {
    using model = await upcycle(device, folder, { numExperts: 4, balanceLoss: 0.2, pooling })
    perturb(device, model, 0.05)
    const loss = model.loss.bind(model)
    const batch = (some: readonly Example[]) => batchOf(device, some)
    const subject: Subject<Example, ReturnType<typeof batch>> = { device, module: model, loss, batch }
    const norms = await squaredNormsByParameter(subject, units, stepRandom(device))
    const written = await writtenSquaredNorms(subject, units, stepRandom(device))
    for (const parameter of model.trainableParameters()) {
      for (const index of units.keys()) {
        const expected = written.get(parameter.name)![index]!
        const got = norms.get(parameter.name)![index]!
        t.ok(
          Math.abs(got - expected) <= 3e-3 * expected + 1e-9,
          `${parameter.name} of unit ${index}: ${got}, ${expected}`,
        )
      }
    }
    const routers = [...norms].filter(([name]) => /router/.test(name))
    t.equal(routers.length, 2)
    t.ok(
      routers.every(([, values]) => values.every((value) => value > 0)),
      'the router learns',
    )
    using frozen = await upcycle(device, folder, { numExperts: 4, trainRouter: false, releaseLoad: true })
    t.notOk(frozen.trainableParameters().some(({ name }) => /router/.test(name)))
    t.equal(frozen.parameters().filter((parameter) => parameter instanceof LoadEstimate).length, 2)
  })
}
