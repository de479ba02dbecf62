import t from 'tap'
import { Parameter } from '../../lib/autograd/parameter.js'
import { Device } from '../../lib/engine/device.js'
import { adam, adamW, dpAdamBC } from '../../lib/optim/adam.js'
import type { Optimizer, OptimizerOptions } from '../../lib/optim/optimizer.js'
import { schedule } from '../../lib/optim/schedules.js'
import { sgd } from '../../lib/optim/sgd.js'
import { keyTensor, seedKey } from '../../lib/privacy/keys.js'
import { uniforms } from '../support/weights.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const key = keyTensor(device, seedKey('optimizers'))
const size = 37
const divisor = 8
const deviation = 0.7

/** One weight's rule in float64: gets the noised, divided gradient and the learning rate, returns the new weight. */
type Rule = (weight: number, gradient: number, rate: number) => number

interface Case {
  options: OptimizerOptions
  make: (parameters: Parameter[], options: OptimizerOptions) => Optimizer
  /** A fresh rule, with its own state, for each weight. */
  rule: () => Rule
}

function sgdRule(momentum: number, nesterov: boolean, decay: number): () => Rule {
  return () => {
    let velocity = 0
    return (weight, gradient, rate) => {
      velocity = momentum * velocity + gradient
      return weight - rate * (nesterov ? gradient + momentum * velocity : velocity) - rate * decay * weight
    }
  }
}

interface AdamRule {
  beta1?: number
  beta2?: number
  epsilon?: number
  coupled?: number
  decay?: number
  noiseVariance?: number
  floor?: number
}

function adamRule({ beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8, coupled = 0, decay = 0, ...bc }: AdamRule): () => Rule {
  return () => {
    let [t, first, second] = [0, 0, 0]
    return (weight, gradient, rate) => {
      t++
      const g = gradient + coupled * weight
      first = beta1 * first + (1 - beta1) * g
      second = beta2 * second + (1 - beta2) * g * g
      const mean = first / (1 - beta1 ** t)
      const square = second / (1 - beta2 ** t)
      const scale =
        bc.floor === undefined
          ? Math.sqrt(square) + epsilon
          : Math.sqrt(Math.max(square - (bc.noiseVariance ?? 0), bc.floor))
      return weight - (rate * mean) / scale - rate * decay * weight
    }
  }
}

const noiseVariance = (deviation / divisor) ** 2
const rate = { learningRate: 0.05 }
const cases: Record<string, Case> = {
  SGD: { options: rate, make: sgd, rule: sgdRule(0, false, 0) },
  'SGD with momentum': {
    options: rate,
    make: (parameters, options) => sgd(parameters, { ...options, momentum: 0.9 }),
    rule: sgdRule(0.9, false, 0),
  },
  'SGD with Nesterov momentum and decay': {
    options: { ...rate, weightDecay: 0.1 },
    make: (parameters, options) => sgd(parameters, { ...options, momentum: 0.8, nesterov: true }),
    rule: sgdRule(0.8, true, 0.1),
  },
  Adam: { options: rate, make: adam, rule: adamRule({}) },
  'Adam with decay in the gradient': {
    options: { ...rate, weightDecay: 0.1 },
    make: (parameters, options) => adam(parameters, { ...options, beta1: 0.8, beta2: 0.95, epsilon: 1e-3 }),
    rule: adamRule({ beta1: 0.8, beta2: 0.95, epsilon: 1e-3, coupled: 0.1 }),
  },
  'AdamW, decay apart': {
    options: { ...rate, weightDecay: 0.1 },
    make: adamW,
    rule: adamRule({ decay: 0.1 }),
  },
  'DP-AdamBC': {
    options: { ...rate, weightDecay: 0.02 },
    make: (parameters, options) => dpAdamBC(parameters, { ...options, varianceFloor: 1e-3, beta2: 0.99 }),
    rule: adamRule({ beta2: 0.99, noiseVariance, floor: 1e-3, decay: 0.02 }),
  },
}

/** The standard normals that an update adds. */
async function normals(step: number, stream: number): Promise<Float32Array> {
  const y = device.empty([size])
  device.run('gaussian', { key, y, first: 0, size, step, stream })
  return (await y.data()) as Float32Array
}

for (const [name, { options, make, rule }] of Object.entries(cases)) {
  for (const noisy of [false, true]) {
    if (name === 'DP-AdamBC' && !noisy) continue
    t.test(`${name} is its formula${noisy ? ', on the noised gradient' : ''}`, async (t) => {
      const next = uniforms(7)
      const values = () => Float32Array.from({ length: size }, () => 2 * next() - 1)
      const parameters = ['a', 'b', 'c'].map((parameterName) => {
        const parameter = new Parameter(device.tensor(values(), [size]))
        parameter.name = parameterName
        return parameter
      })
      parameters[1]!.learningRateScale = 0.3
      parameters[2]!.freeze()
      const factor = schedule('linear', 8, 2)
      const optimizer = make(parameters, { ...options, schedule: factor })
      const read = () =>
        Promise.all(parameters.map(async ({ tensor }) => Float64Array.from((await tensor.data()) as Float32Array)))
      const weights = await read()
      const rules = weights.map((row) => Array.from(row, () => rule()))
      for (let step = 0; step < 6; step++) {
        for (const [stream, parameter] of parameters.entries()) {
          const gradient = values()
          if (!parameter.trainable) continue
          parameter.gradient.write(gradient)
          const noise = await normals(step, stream)
          const learningRate = options.learningRate * factor(step) * parameter.learningRateScale
          weights[stream] = weights[stream]!.map((weight, i) => {
            const noised = gradient[i]! + (noisy ? deviation * noise[i]! : 0)
            return rules[stream]![i]!(weight, noised / divisor, learningRate)
          })
        }
        optimizer.update({ step, divisor, noise: noisy ? { key, deviation } : undefined })
        const found = await read()
        const furthest = found.map((row, p) =>
          row.reduce((most, value, i) => Math.max(most, Math.abs(value - weights[p]![i]!)), 0),
        )
        t.ok(Math.max(...furthest) < 2e-6, `step ${step}: ${furthest}`)
        for (const parameter of parameters.slice(0, 2)) {
          if ((await parameter.gradient.data()).some((value) => value !== 0)) t.fail('the gradient is not cleared')
        }
      }
      t.equal(optimizer.updates, 6)
    })
  }
}
