import type { Device } from '../../lib/engine/device.js'
import { SwitchClassifier, type SwitchClassifierConfig } from '../../lib/models/switch-classifier.js'
import { type TextBatch, textBatch } from '../../lib/models/text-batch.js'
import { accumulateGradients, sumSink } from '../../lib/nn/accumulate.js'
import { Initializer } from '../../lib/nn/initializer.js'
import type { Module } from '../../lib/nn/module.js'

/** One text: its place in the data set, its tokens and its class. */
export interface Example {
  readonly unit: number
  readonly ids: readonly number[]
  readonly label: number
}

/** A Switch classifier small enough to write out by hand. */
export const tinyConfig: SwitchClassifierConfig = {
  vocabularySize: 19,
  numLabels: 3,
  hiddenSize: 12,
  numLayers: 2,
  numAttentionHeads: 3,
  intermediateSize: 20,
  numExperts: 4,
  maxPositions: 64,
}

/** A tiny model whose biases, norms and routers are all away from their first values. */
export function tinyModel(device: Device, overrides: Partial<SwitchClassifierConfig> = {}): SwitchClassifier {
  const model = new SwitchClassifier(new Initializer(device, 7), { ...tinyConfig, ...overrides })
  const init = new Initializer(device, 8)
  for (const parameter of model.parameters()) {
    const noise = init.normal(parameter.shape, 0.15)
    device.run('add', {
      a: parameter.tensor,
      b: noise.tensor,
      y: parameter.tensor,
      size: parameter.size,
      alpha: 1,
      beta: 1,
    })
    noise[Symbol.dispose]()
  }
  return model
}

/** Examples with lengths as given; tokens and classes from a small fixed generator. */
export function examples(lengths: readonly number[], config = tinyConfig, seed = 1): Example[] {
  let state = seed
  const next = (limit: number) => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return Math.floor((state / 2 ** 32) * limit)
  }
  return lengths.map((length, unit) => ({
    unit,
    ids: Array.from({ length }, () => next(config.vocabularySize)),
    label: next(config.numLabels),
  }))
}

/** Examples on the device. */
export function batchOf(device: Device, units: readonly Example[]): TextBatch {
  const offsets = new Int32Array(units.length + 1)
  units.forEach(({ ids }, index) => {
    offsets[index + 1] = offsets[index]! + ids.length
  })
  return textBatch(
    device,
    {
      ids: Int32Array.from(units.flatMap(({ ids }) => ids)),
      positions: Int32Array.from(units.flatMap(({ ids }) => ids.map((_, position) => position))),
      offsets,
      units: Int32Array.from(units, ({ unit }) => unit),
    },
    Int32Array.from(units, ({ label }) => label),
  )
}

/** The plain gradient sum of a batch by parameter name, through SumSink; buffers are cleared. */
export async function gradientSum(
  device: Device,
  model: Module & { loss: (batch: TextBatch, context: never) => unknown },
  units: readonly Example[],
): Promise<Map<string, Float64Array>> {
  const loss = (model as unknown as SwitchClassifier).loss.bind(model)
  await accumulateGradients(device, [() => batchOf(device, units)], loss, sumSink)
  const gradients = new Map<string, Float64Array>()
  for (const parameter of model.trainableParameters()) {
    gradients.set(parameter.name, Float64Array.from((await parameter.gradient.data()) as Float32Array))
    parameter.gradient.fill(0)
  }
  return gradients
}

export function squaredNorm(gradients: ReadonlyMap<string, Float64Array>): number {
  let sum = 0
  for (const values of gradients.values()) for (const value of values) sum += value * value
  return sum
}
