import { checkpoint } from '../autograd/checkpoint.js'
import type { Tensor } from '../engine/tensor.js'
import type { ForwardContext } from './module.js'

/** What a layer gives: its rows, and its routers' loss per unit where it has one. */
export interface LayerOutput {
  readonly y: Tensor
  readonly loss: Tensor | undefined
}

/**
 * Runs a layer; where `checkpoints` is set, only `inputs` (the tensors it reads that others made) are kept for backward,
 * which computes the layer once more.
 */
export function runLayer(
  context: ForwardContext,
  checkpoints: boolean,
  inputs: readonly Tensor[],
  layer: (context: ForwardContext) => LayerOutput,
): LayerOutput {
  if (!checkpoints) return layer(context)
  const [y, loss] = checkpoint(context.tape, inputs, (tape, isFirst) => {
    // What is counted is counted once.
    const output = layer({ ...context, tape, telemetry: isFirst ? context.telemetry : undefined })
    return [output.y, output.loss]
  })
  return { y: y!, loss }
}
