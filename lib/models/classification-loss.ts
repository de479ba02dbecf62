import { add } from '../autograd/elementwise.js'
import { meanPerUnit } from '../autograd/embedding.js'
import { crossEntropy } from '../autograd/losses.js'
import type { Tensor } from '../engine/tensor.js'
import type { ForwardContext } from '../nn/module.js'
import type { TextBatch } from './text-batch.js'

/** Cross entropy of a classifier (the mean over a unit's sequences) plus its routers' loss, per unit: [units]. */
export function classificationLoss(
  { tape }: ForwardContext,
  { labels }: TextBatch,
  { logits, routerLoss }: { logits: Tensor; routerLoss: Tensor | undefined },
): Tensor {
  const loss = meanPerUnit(tape, crossEntropy(tape, logits, labels))
  return routerLoss ? add(tape, loss, routerLoss) : loss
}
