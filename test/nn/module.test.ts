import t from 'tap'
import { poolPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import type { GradientSite } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { Dropout } from '../../lib/nn/dropout.js'
import { Embedding } from '../../lib/nn/embedding.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { Module } from '../../lib/nn/module.js'
import { LayerNorm } from '../../lib/nn/norms.js'
import { collecting, stepRandom } from '../support/sites.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const differs = (a: Float32Array, b: Float32Array) => a.some((value, i) => value !== b[i])

class Parts extends Module {
  readonly embedding = new Embedding(new Initializer(device, 1), { vocabularySize: 5, hiddenSize: 4 })
  readonly layers = [1, 2].map(() => new Linear(new Initializer(device, 1), { inputSize: 4, outputSize: 4 }))
  readonly norm = new LayerNorm(new Initializer(device, 1), 4)
  /** The same table once more. */
  readonly head = this.embedding.weight
  readonly note = 'not a module'
}

t.test('parameters have the path of their fields as names, a shared one its first', (t) => {
  const module = new Parts().nameParameters()
  const names = [
    'embedding.weight',
    'layers.0.weight',
    'layers.0.bias',
    'layers.1.weight',
    'layers.1.bias',
    'norm.weight',
    'norm.bias',
    'head',
  ]
  t.same([...module.namedParameters().keys()], names)
  t.same(
    module.parameters().map(({ name }) => name),
    names.slice(0, -1),
    'each once',
  )
  t.equal([...module.modules()].length, 5)
  t.same(module.couplesUnits(), [])
  t.end()
})

t.test('freezing a part freezes its parameters', (t) => {
  const module = new Parts()
  module.layers[0]!.freeze()
  t.equal(module.trainableParameters().length, module.parameters().length - 2)
  module.freeze()
  t.same(module.trainableParameters(), [])
  t.end()
})

t.test('gradient sites: every use of a trained parameter, none of a frozen one', (t) => {
  const module = new Parts().nameParameters()
  module.layers[1]!.weight.freeze()
  const sites: GradientSite[] = []
  device.scope(() => {
    const layout = new UnitLayout(device, Int32Array.of(0, 2, 3), Int32Array.of(0, 1))
    const tape = new Tape(device, collecting(sites))
    const context = { tape, training: true }
    const ids = device.tensor([1, 2, 3], [3], 'int32').withLayout(layout)
    let x = module.embedding.forward(ids, context)
    for (const layer of module.layers) x = layer.forward(x, context)
    x = linear(tape, module.norm.forward(x, context), module.head)
    const labels = device.tensor([0, 1], [2], 'int32').withLayout(layout.perUnit)
    tape.backward(crossEntropy(tape, poolPerUnit(tape, x), labels))
  })
  t.same(sites.map(({ parameter, kind }) => `${parameter.name} ${kind}`).sort(), [
    'embedding.weight embedding',
    'embedding.weight linear',
    'layers.0.bias bias',
    'layers.0.weight linear',
    'layers.1.bias bias',
    'norm.bias perUnit',
    'norm.weight perUnit',
  ])
  t.end()
})

t.test('dropout keeps the mean, acts in training only and is keyed by unit, not by batch', async (t) => {
  const dropout = new Dropout(0.25, 3)
  const random = stepRandom(device)
  const apply = async (offsets: number[], units: number[], context = { training: true, random }, layer = dropout) => {
    const layout = new UnitLayout(device, Int32Array.from(offsets), Int32Array.from(units))
    const x = device.empty([layout.rows, 64], { layout }).fill(1)
    return (await layer.forward(x, { tape: new Tape(device), ...context }).data()) as Float32Array
  }
  const values = await apply([0, 100, 300], [4, 9])
  const kept = values.filter((value) => value !== 0).length / values.length
  t.ok(values.every((value) => value === 0 || Math.abs(value - 4 / 3) < 1e-6))
  t.ok(Math.abs(kept - 0.75) < 5 * Math.sqrt((0.75 * 0.25) / values.length), `kept ${kept}`)
  t.same(await apply([0, 200], [9]), values.slice(100 * 64), 'unit 9 alone has the same mask')
  const first = values.slice(0, 100 * 64)
  t.ok(differs(await apply([0, 200], [8]), values.slice(100 * 64)), 'unit 8 another')
  t.ok(differs(await apply([0, 100], [4], undefined, new Dropout(0.25, 4)), first), 'another layer another')
  const later = { training: true, random: { ...random, step: 6 } }
  t.ok(differs(await apply([0, 100], [4], later), first), 'another step another')
  t.ok(
    (await apply([0, 100], [4], { training: false, random })).every((value) => value === 1),
    'not in evaluation',
  )
  const layout = new UnitLayout(device, Int32Array.of(0, 1), Int32Array.of(0))
  t.throws(() => dropout.forward(device.zeros([1, 2], { layout }), { tape: new Tape(device), training: true }), {
    message: /context.random/,
  })
  t.throws(
    () =>
      new Dropout(1, 0).forward(device.zeros([1, 2], { layout }), { tape: new Tape(device), training: true, random }),
    {
      message: /dropout rate/,
    },
  )
})

t.test('first weights are a pure function of the seed and the order of creation', async (t) => {
  const weights = async (seed: number | string) => {
    const init = new Initializer(device, seed)
    const [a, b] = [init.normal([50, 60], 0.5), init.normal([50, 60], 0.5)]
    return [(await a.tensor.data()) as Float32Array, (await b.tensor.data()) as Float32Array] as const
  }
  const [a, b] = await weights(1)
  t.same((await weights(1))[0], a)
  t.ok(differs(b, a))
  t.ok(differs((await weights(2))[0], a))
  const deviation = Math.sqrt(a.reduce((sum, value) => sum + value ** 2, 0) / a.length)
  t.ok(Math.abs(deviation - 0.5) < 0.5 * 5 * Math.sqrt(1 / (2 * a.length)), `${deviation}`)
})
