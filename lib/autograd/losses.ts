import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { describe, layoutOf, requireAligned } from './layout.js'
import type { Tape } from './tape.js'

/** -log softmax(logits)[target] per row: logits [rows, classes], targets [rows] int32 (-1: no loss) -> [rows]. */
export function crossEntropy(tape: Tape, logits: Tensor, targets: Tensor): Tensor {
  requireAligned('crossEntropy', logits, targets)
  const { device } = tape
  const [rows, classes] = logits.shape
  if (logits.shape.length !== 2 || targets.size !== rows) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `crossEntropy: expected logits [rows, classes] and targets [rows], got ${describe(logits)} and ${describe(targets)}`,
    )
  }
  const layout = layoutOf(logits)
  const loss = device.empty([rows!], { layout })
  const logSumExp = device.empty([rows!])
  const common = { logits, targets, logSumExp, rows: rows!, classes: classes! }
  device.run('crossEntropy', { ...common, loss })
  const backward = (dLoss: Tensor) => {
    const dLogits = device.empty(logits.shape, { layout, dtype: logits.dtype })
    device.run('crossEntropyBackward', { ...common, dLoss, dLogits })
    tape.addGradient(logits, dLogits)
  }
  tape.record([loss], [logits], [], ([dLoss]) => backward(dLoss!), [logSumExp])
  return loss
}

/** softmax over the last dimension, for predictions: [rows, d] -> [rows, d]. Not differentiable. */
export function softmax(tape: Tape, x: Tensor): Tensor {
  const y = tape.device.empty(x.shape, { layout: layoutOf(x), dtype: x.dtype })
  tape.device.run('softmax', { x, y, rows: x.shape[0]!, d: x.shape[1]! })
  return y
}
