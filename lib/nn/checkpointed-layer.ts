import { checkpoint } from '../autograd/checkpoint.js'
import type { Tensor } from '../engine/tensor.js'
import type { ForwardContext, Module } from './module.js'

/** What a layer gives: its rows, and its routers' loss per unit where it has one. */
export interface LayerOutput {
  readonly y: Tensor
  readonly loss: Tensor | undefined
}

/**
 * Runs a layer whose `inputs` are the tensors it reads that others made. Where it checkpoints
 * (`Module.setActivationCheckpointing`), these alone are kept for backward, which computes it once more; where nothing of it
 * trains or needs a gradient, what it made is freed at once.
 */
export function runLayer(
  context: ForwardContext,
  layer: Module,
  inputs: readonly Tensor[],
  run: (context: ForwardContext) => LayerOutput,
): LayerOutput {
  const { tape } = context
  const isRecorded = inputs.some((input) => tape.tracks(input)) || layer.parameters().some((p) => tape.trains(p))
  if (isRecorded && !layer.activationCheckpointing) return run(context)
  const [y, loss] = checkpoint(tape, inputs, (part, isFirst) => {
    // What is counted is counted once.
    const output = run({ ...context, tape: part, telemetry: isFirst ? context.telemetry : undefined })
    return [output.y, output.loss]
  })
  return { y: y!, loss }
}
