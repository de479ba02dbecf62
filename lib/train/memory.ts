import { OutOfRangeError } from '../errors.js'
import type { PretrainedShape } from '../models/pretrained-shape.js'
import type { Recipe } from './recipe.js'

/** Default bytes for the activations and gradients of a micro-batch. */
export const defaultMemoryBudget = 1024 ** 3

/**
 * How many rows a micro-batch may have so that its activations, and the gradients with respect to them, fit `budget`
 * bytes. A pure function of public numbers: batches split the same way in every run.
 */
export function rowsWithinBudget(config: Recipe['model'], budget: number = defaultMemoryBudget): number {
  if (!(budget > 0)) throw new OutOfRangeError('memoryBudget', 'a number of bytes > 0', budget)
  return Math.max(1, Math.floor(budget / (4 * floatsPerRow(config))))
}

/** The same for the evaluation of a language model, which has the scores of all rows at once: on the device, and read from it. */
export function scoredRowsWithinBudget(shape: PretrainedShape, budget: number = defaultMemoryBudget): number {
  return Math.min(rowsWithinBudget(shape, budget), Math.max(1, Math.floor(budget / (8 * shape.vocabularySize))))
}

/** Floats that a forward and backward pass keep for a row. */
function floatsPerRow(config: Recipe['model']): number {
  const { hiddenSize: hidden, numExperts: experts, expertsPerToken } = config
  if (config.modelType === 'mixture-classifier') return hidden + 4 * experts + 6 * config.numLabels + 16
  const attention = 16 * hidden
  const feedForward = Math.max(1, expertsPerToken) * (4 * config.intermediateSize + 8 * hidden) + 4 * experts
  return 4 * hidden + config.numLayers * (attention + feedForward)
}
