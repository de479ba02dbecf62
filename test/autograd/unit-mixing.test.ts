import t from 'tap'
import { gatedActivate } from '../../lib/autograd/activation.js'
import { attention } from '../../lib/autograd/attention.js'
import { add, dropout, multiply } from '../../lib/autograd/elementwise.js'
import { embedding, poolPerUnit, withLayout } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { linear } from '../../lib/autograd/linear.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { mixture } from '../../lib/autograd/mixture.js'
import { layerNorm, rmsNorm } from '../../lib/autograd/normalisation.js'
import { Parameter } from '../../lib/autograd/parameter.js'
import { meanRows, sumRows } from '../../lib/autograd/reductions.js'
import { combine, route, routerLoss } from '../../lib/autograd/routing.js'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { clippingGroups } from '../../lib/privacy/clipping.js'
import { stepRandom } from '../support/sites.js'

const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())

const tape = new Tape(device, new SumSink())
const units = () => new UnitLayout(device, Int32Array.of(0, 2, 4), Int32Array.of(0, 1))
const [here, there] = [units(), units()]
const rows = (layout: UnitLayout, width = 4) => device.zeros([layout.rows, width], { layout })
const parameter = (...shape: number[]) => new Parameter(device.zeros(shape))
const options = { expertsPerToken: 1, normalize: false, capacityPerSequence: 0 }
const [routing, elsewhere] = [route(tape, rows(here), options), route(tape, rows(there), options)]
const experts = { up: parameter(4, 3, 4), down: parameter(4, 4, 3) }
const ofUnits = (layout: UnitLayout, width: number) => new Parameter(rows(layout, width))

const mixing: Record<string, () => unknown> = {
  add: () => add(tape, rows(here), rows(there)),
  'add: rows and public values': () => add(tape, rows(here), device.zeros([4, 4])),
  'add: rows and units': () => add(tape, rows(here), device.zeros([4, 4], { layout: here.perUnit })),
  multiply: () => multiply(tape, rows(here), rows(there)),
  gatedActivate: () => gatedActivate(tape, rows(here), rows(there), 'silu'),
  attention: () => attention(tape, rows(here), rows(there), rows(here), { heads: 1 }),
  'attention: values': () => attention(tape, rows(here), rows(here), rows(there), { heads: 1 }),
  crossEntropy: () => crossEntropy(tape, rows(here), device.zeros([4], { dtype: 'int32', layout: there })),
  poolPerUnit: () => poolPerUnit(tape, rows(here), device.zeros([4], { layout: there })),
  'linear: the weight': () => linear(tape, rows(here), ofUnits(here, 4)),
  'linear: the bias': () => linear(tape, rows(here), parameter(4, 4), ofUnits(here, 1)),
  'expert: another plan': () => {
    const routed = { routed: elsewhere.plan, operation: 'expert' }
    return linear(tape, rows(here), experts.up, undefined, routed)
  },
  'embedding: the table': () => embedding(tape, device.zeros([4], { dtype: 'int32', layout: here }), ofUnits(here, 4)),
  'layerNorm: the weight': () => layerNorm(tape, rows(here), ofUnits(here, 1), undefined),
  'layerNorm: the bias': () => layerNorm(tape, rows(here), parameter(4), ofUnits(here, 1)),
  'rmsNorm: the weight': () => rmsNorm(tape, rows(here), ofUnits(here, 1)),
  combine: () => {
    const y = device.zeros([routing.plan.slots, 4], { layout: routing.plan })
    return combine(tape, y, elsewhere.gate, routing.plan)
  },
  'combine: another plan': () => {
    const y = device.zeros([routing.plan.slots, 4], { layout: elsewhere.plan })
    return combine(tape, y, routing.gate, routing.plan)
  },
  mixture: () => mixture(tape, rows(there), routing.gate, routing.plan, experts, 'relu'),
  'mixture: gates': () => mixture(tape, rows(here), elsewhere.gate, routing.plan, experts, 'relu'),
  'mixture: experts': () => {
    const up = new Parameter(device.zeros([4, 3, 4], { layout: here }))
    return mixture(tape, rows(here), routing.gate, routing.plan, { ...experts, up }, 'relu')
  },
  routerLoss: () => routerLoss(tape, rows(there), routing, { balance: 1, z: 0 }),
  sumRows: () => sumRows(tape, rows(here)),
  meanRows: () => meanRows(tape, rows(here)),
}

for (const [name, call] of Object.entries(mixing)) {
  t.test(`mixing rows of different units is refused at the call: ${name}`, (t) => {
    t.throws(call, { code: 'UNIT_MIXING', message: new RegExp(`^${name.split(':')[0]}: `) })
    t.end()
  })
}

t.test('what has no meaning without units asks for them', (t) => {
  const bare = device.zeros([4, 4])
  const random = stepRandom(device)
  const calls: Record<string, () => unknown> = {
    route: () => route(tape, bare, options),
    poolPerUnit: () => poolPerUnit(tape, bare),
    embedding: () => embedding(tape, device.zeros([4], { dtype: 'int32' }), parameter(4, 4)),
    attention: () => attention(tape, bare, bare, bare, { heads: 1 }),
    dropout: () => dropout(tape, bare, 0.5, random, 0),
  }
  for (const [name, call] of Object.entries(calls)) {
    t.throws(call, { code: 'INVALID_ARGUMENT', message: new RegExp(`^${name}: .*units`) }, name)
  }
  t.end()
})

t.test('a layout must fit its rows', (t) => {
  t.throws(() => withLayout(device.zeros([5, 2]), here), { code: 'SHAPE_MISMATCH' })
  t.throws(() => new UnitLayout(device, Int32Array.of(1, 2), Int32Array.of(0)), /start at 0/)
  t.throws(() => new UnitLayout(device, Int32Array.of(0, 2), Int32Array.of(0, 1)), { code: 'SHAPE_MISMATCH' })
  t.equal(here.perUnit, here.perUnit.perUnit, 'one row per unit is its own')
  t.end()
})

t.test('a private sink refuses sites of another batch', (t) => {
  const clipping = clippingGroups('flat', 1, [parameter(1)])
  const sink = new ClippedSumSink(device, clipping, 3, device.zeros([1, 3], { dtype: 'float64' }))
  const site = { kind: 'bias', parameter: parameter(4), dy: rows(here), segments: here.segments } as const
  t.throws(() => sink.add(site), { code: 'UNIT_MIXING' })
  t.end()
})
