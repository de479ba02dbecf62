import t from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { clippedGradientSum, perExampleGradientNorms } from '../../lib/privacy/inspect.js'
import { batchOf, examples, gradientSum, squaredNorm, tinyConfig, tinyModel } from '../support/models.js'
import { referenceLoss, type Values } from '../support/reference-switch-classifier.js'

const device = Device.open('cpu', { threads: 2 })
const model = tinyModel(device)
const loss = model.loss.bind(model)
t.teardown(() => device[Symbol.dispose]())

async function values(): Promise<Values> {
  const result: Values = new Map()
  for (const [name, parameter] of model.namedParameters()) {
    const data = (await parameter.tensor.data()) as Float32Array
    result.set(name, { shape: parameter.shape, data: Float64Array.from(data) })
  }
  return result
}

t.test('the loss of each unit is the formula written out in float64', async (t) => {
  const units = examples([5, 1, 17, 40, 2])
  const parameters = await values()
  const losses = await device.scope(() =>
    loss(batchOf(device, units), { tape: new Tape(device), training: false }).data(),
  )
  // Without a sink the router losses are not made, so they are compared with weight 0.
  units.forEach((unit, index) => {
    const expected = referenceLoss({ ...tinyConfig, balanceLoss: 0 }, parameters, unit.ids, unit.label)
    t.ok(
      Math.abs(Number(losses[index]) - expected) < 1e-5 * Math.max(1, expected),
      `unit ${index}: ${losses[index]} ${expected}`,
    )
  })
})

t.test('every parameter has the gradient of the formula, by central differences in float64', async (t) => {
  const units = examples([6, 3])
  const gradients = await gradientSum(device, model, units)
  const parameters = await values()
  const total = () => units.reduce((sum, unit) => sum + referenceLoss(tinyConfig, parameters, unit.ids, unit.label), 0)
  let state = 12345
  for (const [name, { data }] of parameters) {
    const direction = Float64Array.from(data, () => {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0
      return state / 2 ** 31 - 1
    })
    const before = data.slice()
    const at = (step: number) => {
      data.set(before.map((value, i) => value + step * direction[i]!))
      return total()
    }
    const step = 1e-5
    const expected = (at(step) - at(-step)) / (2 * step)
    data.set(before)
    const actual = gradients.get(name)!.reduce((sum, value, i) => sum + value * direction[i]!, 0)
    const size = Math.sqrt(gradients.get(name)!.reduce((sum, value) => sum + value * value, 0)) + 1e-3
    t.ok(Math.abs(actual - expected) < 1e-4 * size * Math.sqrt(data.length), `${name}: ${actual} ${expected}`)
  }
})

t.test('norms and the clipped sum are those of one unit at a time', async (t) => {
  const units = examples([5, 1, 17, 60, 2, 0, 33, 8])
  const alone = []
  for (const unit of units) alone.push(await gradientSum(device, model, [unit]))
  const norms = await perExampleGradientNorms(model, batchOf(device, units), loss)
  alone.forEach((gradients, index) => {
    const truth = squaredNorm(gradients)
    const ratio = truth === 0 ? 1 : norms[index]! ** 2 / truth
    t.ok(ratio > 1 - 1e-5 && ratio < 1 + 2e-3, `unit ${index}: ${norms[index]! ** 2} ${truth}`)
  })
  for (const clipping of ['flat', 'automatic'] as const) {
    const maxGradNorm = Math.sqrt(squaredNorm(alone[3]!)) * 0.9
    const sum = await clippedGradientSum(model, batchOf(device, units), loss, { maxGradNorm, clipping })
    const expected = new Map([...sum].map(([name, values]) => [name, new Float64Array(values.length)]))
    for (const gradients of alone) {
      const norm = Math.sqrt(squaredNorm(gradients))
      const bound = maxGradNorm * (1 - 2 ** -10)
      const factor = clipping === 'flat' ? Math.min(1, bound / norm) : bound / (norm + 0.01)
      if (norm === 0) continue
      for (const [name, values] of expected) {
        gradients.get(name)!.forEach((value, i) => {
          values[i]! += factor * value
        })
      }
    }
    // Some true gradients are zero (the softmax ignores attention.key.bias): what is left of them is rounding of the whole.
    const whole = Math.sqrt(squaredNorm(expected))
    for (const [name, values] of expected) {
      const size = Math.sqrt(values.reduce((s, v) => s + v * v, 0))
      const distance = Math.sqrt(values.reduce((s, v, i) => s + (v - sum.get(name)![i]!) ** 2, 0))
      t.ok(distance < 1.5e-3 * size + 1e-6 * whole, `${clipping} ${name}: ${distance} of ${size}`)
    }
  }
})

t.test('a unit has the same bits whatever the others are', async (t) => {
  const units = examples([5, 9, 17, 40])
  const norms = async (batch: typeof units) => perExampleGradientNorms(model, batchOf(device, batch), loss)
  const before = await norms(units)
  const others = examples([60, 9, 1, 0], tinyConfig, 99)
  const changed = await norms([others[0]!, units[1]!, others[2]!, others[3]!])
  t.equal(changed[1], before[1], 'replaced, lengthened, emptied')
  const permuted = await norms([units[3]!, units[1]!, units[0]!])
  t.equal(permuted[1], before[1], 'permuted, removed')
  t.equal((await norms([units[1]!]))[0], before[1], 'alone')
  for (const threads of [1, 3]) {
    const other = Device.open('cpu', { threads })
    const copy = tinyModel(other)
    const again = await perExampleGradientNorms(copy, batchOf(other, units), copy.loss.bind(copy))
    t.same(again, before, `${threads} threads`)
    other[Symbol.dispose]()
  }
})
