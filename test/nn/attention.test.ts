import t from 'tap'
import { attention } from '../../lib/autograd/attention.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { Attention, type AttentionConfig } from '../../lib/nn/attention.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { checkLayer } from '../support/gradients.js'
import { affine, attention as referenceAttention } from '../support/reference-layers.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const configs: Record<string, AttentionConfig> = {
  bidirectional: { hiddenSize: 12, numAttentionHeads: 3 },
  causal: { hiddenSize: 12, numAttentionHeads: 3, causal: true },
  'shared keys and values': { hiddenSize: 12, numAttentionHeads: 4, numKeyValueHeads: 2, causal: true },
  'one key and value head, no bias': { hiddenSize: 12, numAttentionHeads: 4, numKeyValueHeads: 1, bias: false },
  'one head': { hiddenSize: 12, numAttentionHeads: 1 },
}

for (const [name, config] of Object.entries(configs)) {
  t.test(`Attention: ${name}`, async (t) => {
    const module = new Attention(new Initializer(device, 1), config)
    perturb(device, module, 0.3)
    const bias = config.bias ?? true
    await checkLayer(t, name, {
      device,
      module,
      inputSize: 12,
      lengths: [4, 1, 0, 19],
      forward: (x, context) => ({ y: module.forward(x, context) }),
      reference: (x, get) => {
        const layer = (part: string, row: readonly number[]) =>
          affine(row, get(`${part}.weight`), bias ? get(`${part}.bias`) : undefined)
        const [q, k, v] = ['query', 'key', 'value'].map((part) => x.map((row) => layer(part, row)))
        const mixed = referenceAttention(q!, k!, v!, {
          heads: config.numAttentionHeads,
          keyValueHeads: config.numKeyValueHeads,
          causal: config.causal,
        })
        return { y: mixed.map((row) => layer('output', row)) }
      },
    })
  })
}

t.test('a unit longer than any tile', async (t) => {
  const module = new Attention(new Initializer(device, 2), { hiddenSize: 8, numAttentionHeads: 2, causal: true })
  perturb(device, module, 0.3)
  await checkLayer(t, 'long', {
    device,
    module,
    inputSize: 8,
    lengths: [150, 65],
    forward: (x, context) => ({ y: module.forward(x, context) }),
    reference: (x, get) => {
      const layer = (part: string, row: readonly number[]) => affine(row, get(`${part}.weight`), get(`${part}.bias`))
      const [q, k, v] = ['query', 'key', 'value'].map((part) => x.map((row) => layer(part, row)))
      const mixed = referenceAttention(q!, k!, v!, { heads: 2, causal: true })
      return { y: mixed.map((row) => layer('output', row)) }
    },
  })
})

t.test('shapes that do not fit are refused with all of them named', (t) => {
  const init = new Initializer(device, 1)
  t.throws(() => new Attention(init, { hiddenSize: 10, numAttentionHeads: 3 }), { code: 'INVALID_ARGUMENT' })
  t.throws(() => new Attention(init, { hiddenSize: 12, numAttentionHeads: 4, numKeyValueHeads: 3 }))
  const layout = new UnitLayout(device, Int32Array.of(0, 2), Int32Array.of(0))
  const tensor = (width: number) => device.zeros([2, width], { layout })
  const tape = new Tape(device)
  const wrong = [
    [tensor(12), tensor(6), tensor(12), { heads: 3 }],
    [tensor(12), tensor(12), tensor(6), { heads: 3 }],
    [tensor(10), tensor(10), tensor(10), { heads: 3 }],
    [tensor(12), tensor(4), tensor(4), { heads: 3, keyValueHeads: 2 }],
  ] as const
  for (const [q, k, v, options] of wrong) {
    t.throws(() => attention(tape, q, k, v, options), { code: 'SHAPE_MISMATCH', message: /^attention: / })
  }
  t.end()
})
