import t from 'tap'
import type { Activation } from '../../lib/autograd/activation.js'
import { jitter } from '../../lib/autograd/elementwise.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { LinearExperts } from '../../lib/nn/linear-experts.js'
import { MixtureOfExperts, type MixtureOfExpertsConfig } from '../../lib/nn/mixture-of-experts.js'
import { Telemetry } from '../../lib/nn/telemetry.js'
import { checkLayer, type Layer } from '../support/gradients.js'
import { affine, mixture, softmax } from '../support/reference-layers.js'
import { stepRandom } from '../support/sites.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const hiddenSize = 6
const sizes = { hiddenSize, intermediateSize: 9, numExperts: 4 }
const lengths = [4, 1, 0, 13]

const configs: Record<string, Partial<MixtureOfExpertsConfig>> = {
  'top-1': {},
  'top-1, gates divided by their sum': { normalizeGates: true },
  'top-2': { expertsPerToken: 2 },
  'top-2, gates divided by their sum': { expertsPerToken: 2, normalizeGates: true },
  'every expert': { expertsPerToken: 4, activation: 'gelu' },
  'one expert': { numExperts: 1 },
  'no biases': { bias: false, activation: 'silu' },
  gated: { gated: true, expertsPerToken: 2 },
  'gated with biases and another activation': { gated: true, bias: true, activation: 'geluTanh', normalizeGates: true },
  'capacity 1': { capacityPerSequence: 1 },
  'capacity 2, top-2, gated': { capacityPerSequence: 2, expertsPerToken: 2, gated: true },
  'no balance loss': { balanceLoss: 0 },
  'a large balance loss': { balanceLoss: 3, expertsPerToken: 2 },
  'a large z-loss': { zLoss: 0.5, balanceLoss: 0 },
  'router bias and both losses': { routerBias: true, balanceLoss: 1, zLoss: 0.2, expertsPerToken: 2 },
}

function layerOf(config: MixtureOfExpertsConfig): Layer & { module: MixtureOfExperts } {
  const module = new MixtureOfExperts(new Initializer(device, 4), config)
  perturb(device, module, 0.3)
  const names = new Set(module.namedParameters().keys())
  return {
    device,
    module,
    inputSize: hiddenSize,
    lengths,
    forward: (x, context) => module.forward(x, context),
    reference: (x, get) => mixture(x, get, (name) => names.has(name), config as Parameters<typeof mixture>[3]),
  }
}

for (const [name, config] of Object.entries(configs)) {
  t.test(`MixtureOfExperts: ${name}`, async (t) => {
    await checkLayer(t, name, layerOf({ ...sizes, ...config }))
  })
}

t.test('every activation of the fused layer', async (t) => {
  for (const activation of ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh'] satisfies Activation[]) {
    await checkLayer(t, activation, layerOf({ ...sizes, activation, expertsPerToken: 2 }))
  }
})

t.test('router jitter multiplies the router’s inputs alone', async (t) => {
  const config = { ...sizes, routerJitter: 0.2, expertsPerToken: 2 }
  const random = stepRandom(device)
  const layer = layerOf(config)
  const names = new Set(layer.module.namedParameters().keys())
  const factors = await device.scope(() => {
    const offsets = [0, 4, 5, 5, 18]
    const layout = new UnitLayout(
      device,
      Int32Array.from(offsets),
      Int32Array.from(lengths, (_, unit) => unit),
    )
    const ones = device.empty([layout.rows, hiddenSize], { layout }).fill(1)
    return jitter(new Tape(device), ones, 0.2, random, 0).data()
  })
  t.ok(
    factors.every((factor) => factor >= 0.8 && factor <= 1.2),
    'within 1 +- epsilon',
  )
  await checkLayer(t, 'jitter', {
    ...layer,
    context: { training: true, random },
    reference: (x, get, index) => {
      const first = lengths.slice(0, index).reduce((sum, length) => sum + length, 0)
      const routed = x.map((row, s) => row.map((value, j) => value * Number(factors[(first + s) * hiddenSize + j])))
      return mixture(x, get, (name) => names.has(name), config, routed)
    },
  })
  await checkLayer(t, 'no jitter in evaluation', { ...layer, context: { training: false } })
  const x = device.zeros([1, hiddenSize], { layout: new UnitLayout(device, Int32Array.of(0, 1), Int32Array.of(0)) })
  t.throws(() => layer.module.forward(x, { tape: new Tape(device), training: true }), { message: /context.random/ })
})

t.test('linear experts', async (t) => {
  for (const expertsPerToken of [1, 2, 3]) {
    for (const normalizeGates of [true, false]) {
      const module = new LinearExperts(new Initializer(device, 5), {
        inputSize: hiddenSize,
        outputSize: 4,
        numExperts: 3,
        expertsPerToken,
        normalizeGates,
        balanceLoss: 0.7,
      })
      perturb(device, module, 0.3)
      await checkLayer(t, `top-${expertsPerToken}${normalizeGates ? ', divided' : ''}`, {
        device,
        module,
        inputSize: hiddenSize,
        forward: (x, context) => module.forward(x, context),
        reference: (x, get) => {
          const chosen = [0, 0, 0]
          const probabilities = x.map((row) => softmax(affine(row, get('router.weight'))))
          const y = x.map((row, s) => {
            const p = probabilities[s]!
            const experts = [0, 1, 2].sort((a, b) => p[b]! - p[a]!).slice(0, expertsPerToken)
            const sum = normalizeGates ? experts.reduce((total, e) => total + p[e]!, 0) : 1
            const out = [0, 0, 0, 0]
            for (const e of experts) {
              chosen[e]!++
              affine(row, get('weight'), undefined, e, 4).forEach((value, i) => {
                out[i]! += (p[e]! / sum) * value
              })
            }
            return out
          })
          const balance = chosen.reduce((total, count, e) => {
            const mean = probabilities.reduce((sum, p) => sum + p[e]!, 0) / x.length
            return total + (3 * (count / x.length) * mean) / expertsPerToken
          }, 0)
          return { y, loss: 0.7 * balance }
        },
      })
    }
  }
})

t.test('a unit on one expert has loads and losses of its own', async (t) => {
  const module = new MixtureOfExperts(new Initializer(device, 4), { ...sizes, balanceLoss: 1 })
  module.router.weight.tensor.fill(0)
  const telemetry = new Telemetry(device)
  const layout = new UnitLayout(device, Int32Array.of(0, 5, 5, 8), Int32Array.of(0, 1, 2))
  const { loss } = module.forward(device.empty([8, hiddenSize], { layout }).fill(1), {
    tape: new Tape(device),
    training: false,
    telemetry,
  })
  // Equal logits: ties go to expert 0, so f = (1, 0, 0, 0) and P = 1/4 each; the loss is E * 1 * 1/4 = 1.
  t.same([...(await loss!.data())], [1, 0, 1], 'an empty unit has none')
  t.same(await telemetry.takeExpertLoads(), { layer0: [1, 0, 0, 0] })
  t.same(await telemetry.takeExpertLoads(), {}, 'counting starts anew')
})

t.test('capacity drops a unit’s own last rows, whatever the other units send', async (t) => {
  const module = new MixtureOfExperts(new Initializer(device, 4), { ...sizes, capacityPerSequence: 2 })
  module.router.weight.tensor.fill(0)
  const layout = new UnitLayout(device, Int32Array.of(0, 4, 7), Int32Array.of(0, 1))
  const x = device.empty([7, hiddenSize], { layout }).fill(1)
  const { y } = module.forward(x, { tape: new Tape(device), training: false })
  const rows = (await y.data()) as Float32Array
  const passes = Array.from({ length: 7 }, (_, row) =>
    rows.slice(row * hiddenSize, (row + 1) * hiddenSize).every((value) => value === 0),
  )
  t.same(passes, [false, false, true, true, false, false, true], 'two rows of each unit')
})

t.test('options out of range and batch-coupled ones are refused by name', (t) => {
  const init = new Initializer(device, 1)
  const wrong: Partial<MixtureOfExpertsConfig>[] = [
    { expertsPerToken: 0 },
    { expertsPerToken: 5 },
    { expertsPerToken: 1.5 },
    { numExperts: 0 },
    { hiddenSize: -1 },
    { intermediateSize: 2.5 },
  ]
  for (const config of wrong) {
    const name = Object.keys(config)[0]!
    t.throws(() => new MixtureOfExperts(init, { ...sizes, ...config }), { message: new RegExp(name) }, name)
  }
  const layout = new UnitLayout(device, Int32Array.of(0, 1), Int32Array.of(0))
  const x = device.zeros([1, hiddenSize], { layout })
  const context = { tape: new Tape(device), training: false }
  t.throws(
    () => new MixtureOfExperts(init, { ...sizes, capacityPerSequence: -1 }).forward(x, context),
    /capacityPerSequence/,
  )
  const coupled = new MixtureOfExperts(init, { ...sizes, batchCoupled: ['batch-capacity', 'load-bias'] })
  t.equal(coupled.couplesUnits().length, 2)
  t.throws(() => coupled.forward(x, context), { code: 'INVALID_ARGUMENT', message: /batch-capacity.*load-bias/ })
  t.end()
})
