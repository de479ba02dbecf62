import t from 'tap'
import {
  type DpEvent,
  gaussian,
  PldAccountant,
  RdpAccountant,
  type SolveRequest,
  solve,
} from '../../lib/accounting/index.js'

const inner = gaussian(1)
const event = (fields: object) => fields as DpEvent
const nested = (depth: number): DpEvent =>
  depth === 0 ? inner : { type: 'self-composed', count: 1, event: nested(depth - 1) }

const loop = { type: 'composed', events: [] as unknown[] }
loop.events.push(loop)
const sampledLoop: Record<string, unknown> = { type: 'poisson-sampled', sampleRate: 0.1 }
sampledLoop.event = sampledLoop

/** What JSON or JavaScript may hold where an event is expected, and the name of what is wrong with it. */
const HOSTILE: [string, unknown, RegExp][] = [
  ['nothing', undefined, /event/],
  ['null', null, /event/],
  ['text', 'gaussian', /event/],
  ['a list', [inner], /event/],
  ['no type', { noiseMultiplier: 1 }, /event/],
  ['a name of every object', event({ type: 'toString' }), /toString/],
  ['the tree mechanism', event({ type: 'tree-aggregation', noiseMultiplier: 1 }), /tree-aggregation/],
  ['a loop', loop, /deep/],
  ['a loop through sampling', sampledLoop, /poisson-sampled/],
  ['far too deep', nested(5000), /deep/],
  ['no inner event', event({ type: 'poisson-sampled', sampleRate: 0.5 }), /event/],
  ['nothing to repeat', event({ type: 'self-composed', count: 2 }), /event/],
  ['no list', event({ type: 'composed' }), /events/],
  ['text as a list', event({ type: 'composed', events: 'abc' }), /events/],
  ['noise as text', event({ type: 'gaussian', noiseMultiplier: '1' }), /noiseMultiplier, got '1'/],
  ['no noise', event({ type: 'gaussian' }), /noiseMultiplier, got undefined/],
  ['noise that is no number', event({ type: 'gaussian', noiseMultiplier: Number.NaN }), /noiseMultiplier, got NaN/],
  ['a rate as text', event({ type: 'poisson-sampled', sampleRate: '0.5', event: inner }), /sampleRate, got '0.5'/],
  ['a rate in a list', event({ type: 'poisson-sampled', sampleRate: [0.5], event: inner }), /sampleRate/],
  ['a count as text', event({ type: 'self-composed', count: '3', event: inner }), /count, got '3'/],
  ['a huge count', event({ type: 'self-composed', count: 1e300, event: inner }), /count, got 1e\+300/],
  [
    'counts that multiply to a huge one',
    event({ type: 'self-composed', count: 1e9, event: { type: 'self-composed', count: 1e9, event: inner } }),
    /count, got 1000000000000000000/,
  ],
  ['a mixture of nothing', event({ type: 'mixture-of-gaussians', noiseMultiplier: 1 }), /sensitivities/],
  [
    'sensitivities as text',
    event({ type: 'mixture-of-gaussians', noiseMultiplier: 1, sensitivities: ['1'], probabilities: [1] }),
    /sensitivities/,
  ],
  [
    'probabilities as text',
    event({ type: 'mixture-of-gaussians', noiseMultiplier: 1, sensitivities: [1], probabilities: ['1'] }),
    /probabilities/,
  ],
  ['epsilon as text', event({ type: 'epsilon-delta', epsilon: '1', delta: 0 }), /epsilon, got '1'/],
  ['delta as text', event({ type: 'epsilon-delta', epsilon: 1, delta: '0.1' }), /delta, got '0.1'/],
  [
    'more kept than there are',
    event({ type: 'truncated-poisson-sampled', sampleRate: 0.1, datasetSize: 10, maxBatchSize: 11, event: inner }),
    /maxBatchSize, got 11/,
  ],
]

t.test('what is no event is refused by name, by both accountants, which are as before', (t) => {
  for (const [label, hostile, message] of HOSTILE) {
    for (const accountant of [new PldAccountant(), new RdpAccountant()]) {
      accountant.compose(inner)
      t.throws(() => accountant.compose(hostile as DpEvent), { name: 'OutOfRangeError', message }, label)
      t.same(accountant.events, [{ event: inner, count: 1 }])
    }
  }
  t.end()
})

t.test('numbers are numbers', (t) => {
  const request = { epsilon: 1, delta: 1e-5, sampleRate: 0.1, steps: 10 }
  for (const name of ['epsilon', 'delta', 'sampleRate', 'steps'] as const) {
    for (const value of [String(request[name]), Number.NaN, null, {}]) {
      const hostile = { ...request, [name]: value } as SolveRequest
      t.throws(() => solve(hostile), { name: 'OutOfRangeError', message: new RegExp(`for ${name}, got`) }, name)
    }
  }
  const text = '0.1' as unknown as number
  t.throws(() => new PldAccountant({ tolerance: text }), { name: 'OutOfRangeError', message: /tolerance/ })
  t.throws(() => new PldAccountant().compose(inner).epsilon(text), { name: 'OutOfRangeError', message: /delta/ })
  t.throws(() => new PldAccountant().compose(inner).delta(text), { name: 'OutOfRangeError', message: /epsilon/ })
  t.end()
})
