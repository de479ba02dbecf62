import t from 'tap'
import type { NeighboringRelation } from '../../lib/accounting/index.js'
import { Device } from '../../lib/engine/device.js'
import { sgd } from '../../lib/optim/sgd.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { batchOf, examples, tinyModel } from '../support/models.js'
import { difference, flat, readWeights } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const relations: readonly NeighboringRelation[] = ['zero-out', 'add-or-remove-one', 'replace-one']
const delta = 1e-6

/** Engine and training of the same mechanism under a relation: sigma 3, rate 0.1. */
function trainingUnder(relation: NeighboringRelation, steps: number) {
  const model = tinyModel(device)
  const engine = new PrivacyEngine({ relation, seed: 41 })
  const training = engine.makePrivate({
    module: model,
    optimizer: sgd(model.parameters(), { learningRate: 1 }),
    data: { length: 1000 },
    noiseMultiplier: 3,
    maxGradNorm: 2,
    expectedBatchSize: 100,
    sampleRate: 0.1,
    steps,
  })
  return { model, engine, training }
}

t.test('the relation changes what is reported, not what is done', async (t) => {
  const updates = new Map<NeighboringRelation, Float64Array>()
  for (const relation of relations) {
    const { model, training } = trainingUnder(relation, 10)
    t.equal(training.noiseMultiplier, 3, relation)
    t.equal(training.optimizer.noiseDeviation, 6, `${relation}: sigma C`)
    const before = await readWeights(model)
    await training.step(0, [() => batchOf(device, examples([5, 3, 17]))], model.loss.bind(model))
    updates.set(relation, flat(difference(await readWeights(model), before)))
  }
  for (const relation of relations)
    t.strictSame(updates.get(relation), updates.get('zero-out'), `${relation}: same bits`)
})

t.test('512 steps at sigma 3 and rate 0.1', async (t) => {
  const expected = { 'zero-out': 3.77, 'add-or-remove-one': 3.77, 'replace-one': 7.82 }
  for (const relation of relations) {
    const { model, engine, training } = trainingUnder(relation, 512)
    t.equal(engine.epsilon(delta), 0, `${relation}: nothing spent yet`)
    for (let step = 0; step < 512; step++) await training.step(step, [], model.loss.bind(model))
    const epsilon = engine.epsilon(delta)
    t.ok(Math.abs(epsilon - expected[relation]) < 0.02, `${relation}: ${epsilon}`)
    t.equal(engine.epsilon(delta), epsilon, `${relation}: asking spends nothing`)
    model[Symbol.dispose]()
  }
})

t.test('a target epsilon needs more noise under replace-one', (t) => {
  const noise = relations.map((relation) => {
    const model = tinyModel(device)
    const training = new PrivacyEngine({ relation }).makePrivateWithEpsilon({
      module: model,
      optimizer: sgd(model.parameters(), { learningRate: 1 }),
      data: { length: 1000 },
      maxGradNorm: 2,
      expectedBatchSize: 100,
      sampleRate: 0.1,
      steps: 100,
      targetEpsilon: 2,
      targetDelta: delta,
    })
    t.equal(training.optimizer.noiseDeviation, 2 * training.noiseMultiplier, relation)
    return training.noiseMultiplier
  })
  t.ok(noise[2]! > 1.5 * noise[0]!, `${noise}`)
  t.end()
})
