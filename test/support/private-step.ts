import type { LossFunction, UnitBatch } from '../../lib/nn/accumulate.js'
import type { Module } from '../../lib/nn/module.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer, type PrivateOptimizerOptions } from '../../lib/privacy/private-optimizer.js'
import { difference, readWeights, writeWeights } from './weights.js'

export interface StepOptions extends Partial<Omit<PrivateOptimizerOptions, 'optimizer'>> {
  step?: number
}

/**
 * What one private step of plain SGD at learning rate 1 takes from the weights, times expectedBatchSize: the noised sum
 * of clipped gradients. By default C = 1 and no noise. The weights are put back.
 */
export async function privateSum<B extends UnitBatch>(
  module: Module,
  loss: LossFunction<B>,
  microBatches: readonly (() => B)[],
  { step = 0, ...options }: StepOptions = {},
): Promise<Map<string, Float64Array>> {
  const before = await readWeights(module)
  const all = {
    optimizer: sgd(module.parameters(), { learningRate: 1 }),
    key: seedKey('private sum'),
    noiseMultiplier: 0,
    maxGradNorm: 1,
    expectedBatchSize: 1,
    ...options,
  }
  using optimizer = new PrivateOptimizer(all)
  await optimizer.step(step, microBatches, loss)
  const moved = difference(before, await readWeights(module))
  writeWeights(module, before)
  return new Map([...moved].map(([name, values]) => [name, values.map((value) => value * all.expectedBatchSize)]))
}
