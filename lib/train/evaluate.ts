import { softmax } from '../autograd/losses.js'
import { Tape } from '../autograd/tape.js'
import type { Dataset } from '../data/index.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import type { TextClassifier } from '../models/text-classifier.js'
import { microBatches } from './batches.js'
import type { EvaluationResult } from './options.js'

/** Rows of a batch in evaluation, where nothing is kept for backward. */
const evaluationRows = 32768

/** Class probabilities of every unit, [N * classes] row by row. */
export function classProbabilities(
  device: Device,
  model: TextClassifier,
  data: Dataset,
  signal?: AbortSignal,
): Promise<Float32Array> {
  return classScores(device, model, data, softmax, signal)
}

/** Logits of every unit as they leave the model, [N * classes] row by row. */
export function classLogits(
  device: Device,
  model: TextClassifier,
  data: Dataset,
  signal?: AbortSignal,
): Promise<Float32Array> {
  return classScores(device, model, data, (_, logits) => logits, signal)
}

async function classScores(
  device: Device,
  model: TextClassifier,
  data: Dataset,
  of: (tape: Tape, logits: Tensor) => Tensor,
  signal?: AbortSignal,
): Promise<Float32Array> {
  const units = Int32Array.from({ length: data.length }, (_, unit) => unit)
  const parts: Float32Array[] = []
  for (const microBatch of microBatches(device, data, units, evaluationRows)) {
    signal?.throwIfAborted()
    const scores = device.scope(() => {
      const context = { tape: new Tape(device), training: false }
      return of(context.tape, model.logits(microBatch(), context)).data()
    })
    parts.push((await scores) as Float32Array)
  }
  const all = new Float32Array(parts.reduce((sum, part) => sum + part.length, 0))
  let at = 0
  for (const part of parts) {
    all.set(part, at)
    at += part.length
  }
  return all
}

/** Accuracy and mean cross entropy, computed without noise: private values where the data are. Ties go to the lower class. */
export async function evaluateClassifier(
  device: Device,
  model: TextClassifier,
  data: Dataset,
  signal?: AbortSignal,
): Promise<EvaluationResult> {
  const probabilities = await classProbabilities(device, model, data, signal)
  const classes = data.length > 0 ? probabilities.length / data.length : 0
  let correct = 0
  let loss = 0
  for (let unit = 0; unit < data.length; unit++) {
    const row = probabilities.subarray(unit * classes, (unit + 1) * classes)
    const label = data.labels[unit]!
    if (mostProbable(row) === label) correct++
    loss -= Math.log(Math.max(row[label]!, 1e-38))
  }
  return { accuracy: correct / data.length, loss: loss / data.length, examples: data.length }
}

/** Index of the largest value, the lowest on a tie. */
export function mostProbable(row: Float32Array): number {
  let best = 0
  for (let index = 1; index < row.length; index++) if (row[index]! > row[best]!) best = index
  return best
}
