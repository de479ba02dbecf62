import t from 'tap'
import type { Activation } from '../../lib/autograd/activation.js'
import { Device } from '../../lib/engine/device.js'
import { FeedForward } from '../../lib/nn/feed-forward.js'
import { Initializer } from '../../lib/nn/initializer.js'
import { Linear } from '../../lib/nn/linear.js'
import { LayerNorm, RmsNorm } from '../../lib/nn/norms.js'
import { checkLayer } from '../support/gradients.js'
import { activations, affine, layerNorm, rmsNorm } from '../support/reference-layers.js'
import { perturb } from '../support/token-model.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const kinds: readonly Activation[] = ['none', 'relu', 'gelu', 'geluTanh', 'silu', 'tanh']

t.test('Linear', async (t) => {
  for (const bias of [true, false]) {
    for (const activation of kinds) {
      const module = new Linear(new Initializer(device, 1), { inputSize: 7, outputSize: 5, bias })
      perturb(device, module, 0.3)
      await checkLayer(t, `${activation}${bias ? '' : ' without bias'}`, {
        device,
        module,
        inputSize: 7,
        forward: (x, context) => ({ y: module.forward(x, context, { activation }) }),
        reference: (x, get) => ({
          y: x.map((row) => affine(row, get('weight'), bias ? get('bias') : undefined).map(activations[activation])),
        }),
      })
    }
  }
})

t.test('LayerNorm', async (t) => {
  for (const bias of [true, false]) {
    const module = new LayerNorm(new Initializer(device, 1), 9, 1e-3, bias)
    perturb(device, module, 0.3)
    await checkLayer(t, bias ? 'with bias' : 'without bias', {
      device,
      module,
      inputSize: 9,
      forward: (x, context) => ({ y: module.forward(x, context) }),
      reference: (x, get) => ({
        y: x.map((row) => layerNorm(row, get('weight'), bias ? get('bias') : undefined, 1e-3)),
      }),
    })
  }
})

t.test('RmsNorm', async (t) => {
  const module = new RmsNorm(new Initializer(device, 1), 9, 1e-3)
  perturb(device, module, 0.3)
  await checkLayer(t, 'RMS', {
    device,
    module,
    inputSize: 9,
    forward: (x, context) => ({ y: module.forward(x, context) }),
    reference: (x, get) => ({ y: x.map((row) => rmsNorm(row, get('weight'), 1e-3)) }),
  })
})

t.test('FeedForward', async (t) => {
  for (const gated of [false, true]) {
    for (const activation of kinds) {
      const module = new FeedForward(new Initializer(device, 1), {
        hiddenSize: 6,
        intermediateSize: 10,
        activation,
        gated,
        bias: activation !== 'silu',
      })
      perturb(device, module, 0.2)
      const act = activations[activation]
      const bias = activation !== 'silu'
      await checkLayer(t, `${gated ? 'gated ' : ''}${activation}`, {
        device,
        module,
        inputSize: 6,
        forward: (x, context) => ({ y: module.forward(x, context) }),
        reference: (x, get) => {
          const layer = (name: string, row: readonly number[]) =>
            affine(row, get(`${name}.weight`), bias ? get(`${name}.bias`) : undefined)
          return {
            y: x.map((row) => {
              const up = layer('up', row)
              const hidden = gated ? layer('gate', row).map((value, i) => act(value) * up[i]!) : up.map(act)
              return layer('down', hidden)
            }),
          }
        },
      })
    }
  }
})

t.test('a frozen part has no gradient and the others keep theirs', async (t) => {
  const module = new FeedForward(new Initializer(device, 1), {
    hiddenSize: 6,
    intermediateSize: 10,
    activation: 'gelu',
  })
  perturb(device, module, 0.2)
  module.up.freeze()
  await checkLayer(t, 'frozen up', {
    device,
    module,
    inputSize: 6,
    forward: (x, context) => ({ y: module.forward(x, context) }),
    reference: (x, get) => ({
      y: x.map((row) => {
        const hidden = affine(row, get('up.weight'), get('up.bias')).map(activations.gelu)
        return affine(hidden, get('down.weight'), get('down.bias'))
      }),
    }),
  })
})
