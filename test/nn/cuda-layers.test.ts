// Every option of the layers on an emulated CUDA device: the gradient norms are the CPU's, but for rounding.
import t from 'tap'
import { roundToBfloat16, widenBfloat16 } from '../../lib/engine/bfloat16.js'
import { Device } from '../../lib/engine/device.js'
import { EmulatedCuda } from '../support/emulated-cuda.js'
import { batchOf, type Example, examples, tinyConfig } from '../support/models.js'
import { squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { TokenModel, type TokenModelConfig } from '../support/token-model.js'
import { readWeights, type Weights, writeWeights } from '../support/weights.js'

const emulated = new EmulatedCuda()
t.teardown(() => emulated.remove())
t.setTimeout(280_000)
emulated.use()

const devices = {
  cpu: Device.open('cpu', { threads: 1 }),
  float32: Device.open('cuda'),
  bfloat16: Device.open('cuda', { precision: 'bfloat16' }),
}
t.teardown(() => {
  for (const device of Object.values(devices)) device.close()
})

// No relu: rounding may carry its argument across zero, and then a gradient is another one.
const variants: Record<string, TokenModelConfig> = {
  'grouped keys, causal, top-2': {
    norm: 'rms',
    causal: true,
    keyValueHeads: 1,
    mixture: { activation: 'gelu', expertsPerToken: 2, normalizeGates: true },
  },
  'tied head': { tied: true, mixture: { activation: 'geluTanh' } },
  'gated experts with biases': { mixture: { gated: true, bias: true } },
  'capacity, router losses': {
    mixture: { activation: 'silu', capacityPerSequence: 2, routerBias: true, balanceLoss: 1, zLoss: 0.1 },
  },
  'dropout and jitter': { dropout: 0.3, mixture: { activation: 'tanh', routerJitter: 0.2, expertsPerToken: 2 } },
}
const units = examples([5, 1, 0, 14], tinyConfig, 11)

/** Per parameter and unit. */
async function norms(device: Device, config: TokenModelConfig, weights?: Weights) {
  using module = new TokenModel(device, config)
  if (weights) writeWeights(module, weights)
  const subject = { device, module, loss: module.loss, batch: (texts: readonly Example[]) => batchOf(device, texts) }
  const squares = await squaredNormsByParameter(subject, units, stepRandom(device))
  return { squares, weights: await readWeights(module) }
}

/** The largest error of a parameter's norm in a unit, relative to the unit's whole norm. */
function errorOf(actual: Map<string, number[]>, expected: Map<string, number[]>): number {
  const whole = units.map((_, u) => Math.sqrt([...expected.values()].reduce((sum, squares) => sum + squares[u]!, 0)))
  let error = 0
  for (const [name, squares] of expected) {
    for (const [u, square] of squares.entries()) {
      const off = Math.abs(Math.sqrt(actual.get(name)![u]!) - Math.sqrt(square))
      error = Math.max(error, whole[u] === 0 ? off : off / whole[u]!)
    }
  }
  return error
}

for (const [name, config] of Object.entries(variants)) {
  t.test(name, async (t) => {
    const first = await norms(devices.cpu, config)
    const round = (values: Float64Array) => Float64Array.from(widenBfloat16(roundToBfloat16(Float32Array.from(values))))
    const weights = new Map([...first.weights].map(([name, values]) => [name, round(values)]))
    const expected = await norms(devices.cpu, config, weights)
    const full = errorOf((await norms(devices.float32, config, weights)).squares, expected.squares)
    t.ok(full < 1e-5, `float32: off by ${full}`)
    const half = errorOf((await norms(devices.bfloat16, config, weights)).squares, expected.squares)
    t.ok(half < 2e-2, `bfloat16: off by ${half}`)
  })
}
