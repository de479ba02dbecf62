import type { Test } from 'tap'
import { add } from '../../lib/autograd/elementwise.js'
import { poolPerUnit } from '../../lib/autograd/embedding.js'
import { UnitLayout } from '../../lib/autograd/layout.js'
import { crossEntropy } from '../../lib/autograd/losses.js'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import type { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import type { ForwardContext, Module } from '../../lib/nn/module.js'
import { dot, type Get, logSumExp, type Rows } from './reference-layers.js'
import { uniforms } from './weights.js'

/** A layer under test: what the library computes, and the same formula in float64. */
export interface Layer {
  readonly device: Device
  readonly module: Module
  readonly inputSize: number
  /** Rows of each unit. Default: some of several sizes, one empty. */
  readonly lengths?: readonly number[]
  readonly context?: Partial<ForwardContext>
  forward(x: Tensor, context: ForwardContext): { y: Tensor; loss?: Tensor | undefined }
  /** The layer on the rows of the unit at `index`. */
  reference(x: Rows, get: Get, index: number): { y: Rows; loss?: number }
}

/** Loss per unit: cross entropy of the mean output row for class (unit mod width), plus the layer's own loss. */
function referenceLoss(layer: Layer, inputs: readonly Rows[], get: Get): number[] {
  return inputs.map((x, index) => {
    if (x.length === 0) return Number.NaN
    const { y, loss = 0 } = layer.reference(x, get, index)
    const width = y[0]!.length
    const pooled = Array.from({ length: width }, (_, j) => y.reduce((sum, row) => sum + row[j]!, 0) / y.length)
    return logSumExp(pooled) - pooled[index % width]! + loss
  })
}

/**
 * Compares a layer's loss with its formula, and the gradients of every trainable parameter and of the input with central
 * differences of the formula in float64, along random directions.
 */
export async function checkLayer(t: Test, name: string, layer: Layer): Promise<void> {
  const { module, inputSize, lengths = [4, 1, 0, 9] } = layer
  const next = uniforms(1 + name.length)
  const inputs = lengths.map((length) =>
    Array.from({ length }, () => Array.from({ length: inputSize }, () => 3 * next() - 1.5)),
  )
  // What float32 holds is what both sides see.
  const rounded = inputs.map((x) => x.map((row) => [...Float32Array.from(row)]))
  const values = new Map<string, Float64Array>()
  for (const [key, parameter] of module.namedParameters()) {
    values.set(key, Float64Array.from((await parameter.tensor.data()) as Float32Array))
  }
  const { losses, inputGradient, gradients } = await run(layer, rounded, lengths)

  const get: Get = (key) => values.get(key)!
  const expected = referenceLoss(layer, rounded, get)
  expected.forEach((value, unit) => {
    if (Number.isNaN(value)) return
    const close = Math.abs(value - losses[unit]!) < 1e-5 * Math.max(1, Math.abs(value))
    t.ok(close, `${name}: loss of unit ${unit}: ${losses[unit]} ${value}`)
  })

  const total = (x: readonly Rows[]) =>
    referenceLoss(layer, x, get).reduce((sum, value) => sum + (Number.isNaN(value) ? 0 : value), 0)
  const whole = Math.sqrt(
    [...gradients.values(), inputGradient].reduce((sum, gradient) => sum + dot(gradient, gradient), 0),
  )
  const compare = (what: string, gradient: Float64Array, slope: (direction: Float64Array) => number) => {
    for (let trial = 0; trial < 2; trial++) {
      const direction = gradient.map(() => 2 * next() - 1)
      const size = Math.sqrt(dot(direction, direction))
      const tolerance = size * (2e-5 * Math.sqrt(dot(gradient, gradient)) + 1e-6 * whole)
      const actual = dot(gradient, direction)
      const reference = slope(direction)
      t.ok(Math.abs(actual - reference) <= tolerance, `${name}: gradient of ${what}: ${actual} ${reference}`)
    }
  }
  const step = 1e-5
  for (const [key, gradient] of gradients) {
    const data = values.get(key)!
    const before = data.slice()
    compare(key, gradient, (direction) => {
      const at = (distance: number) => {
        data.set(before.map((value, i) => value + distance * direction[i]!))
        return total(rounded)
      }
      const slope = (at(step) - at(-step)) / (2 * step)
      data.set(before)
      return slope
    })
  }
  compare('the input', inputGradient, (direction) => {
    const at = (distance: number) => {
      let i = 0
      return total(rounded.map((x) => x.map((row) => row.map((value) => value + distance * direction[i++]!))))
    }
    return (at(step) - at(-step)) / (2 * step)
  })
}

async function run(layer: Layer, inputs: readonly Rows[], lengths: readonly number[]) {
  const { device, module, inputSize } = layer
  for (const [key, parameter] of module.namedParameters()) parameter.name ||= key
  const offsets = new Int32Array(lengths.length + 1)
  lengths.forEach((length, unit) => {
    offsets[unit + 1] = offsets[unit]! + length
  })
  const downloads = device.scope(() => {
    const layout = new UnitLayout(
      device,
      offsets,
      Int32Array.from(lengths, (_, unit) => unit),
    )
    const x = device.tensor(Float32Array.from(inputs.flat(2)), [layout.rows, inputSize]).withLayout(layout)
    const tape = new Tape(device, new SumSink())
    tape.watch(x)
    const { y, loss } = layer.forward(x, { tape, training: false, ...layer.context })
    const labels = device.tensor(
      Int32Array.from(lengths, (length, unit) => (length > 0 ? unit % y.shape[1]! : -1)),
      [lengths.length],
      'int32',
    )
    const task = crossEntropy(tape, poolPerUnit(tape, y), labels.withLayout(layout.perUnit))
    const losses = loss ? add(tape, task, loss) : task
    tape.backward(losses)
    return { losses: losses.data(), input: tape.gradientOf(x)!.data() }
  })
  const gradients = new Map<string, Float64Array>()
  for (const parameter of module.trainableParameters()) {
    gradients.set(parameter.name, Float64Array.from((await parameter.gradient.data()) as Float32Array))
    parameter.gradient.fill(0)
  }
  const inputGradient = Float64Array.from((await downloads.input) as Float32Array)
  return { losses: (await downloads.losses) as Float32Array, inputGradient, gradients }
}
