import { DpMoeError } from '../errors.js'
import type { Module } from '../nn/module.js'
import { adaptersOf, mergeAdapters } from '../nn/trainable.js'

/**
 * Writes a model's adapters into its weights, where their scale may make of finite numbers what is not.
 *
 * @throws DpMoeError INVALID_ARGUMENT where a weight is not finite then: the run diverged, and nothing of it is released
 */
export async function mergeForRelease(model: Module): Promise<void> {
  const changed = [...adaptersOf(model).keys()]
  mergeAdapters(model)
  for (const { name, tensor } of changed) {
    if (((await tensor.data()) as Float32Array).every(Number.isFinite)) continue
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `The weights are not finite once the adapters are in them (${name}): the run diverged. Start again with a lower learning rate ` +
        'or a lower alpha (--lora-alpha)',
    )
  }
}
