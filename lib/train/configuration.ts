import type { Device } from '../engine/device.js'
import type { Module } from '../nn/module.js'
import type { RunKey } from '../privacy/keys.js'
import { version } from '../version.js'
import type { PretrainedChoice } from './open-model.js'
import type { TrainOptions } from './options.js'
import type { PrivatePlan } from './private-plan.js'
import type { Recipe } from './recipe.js'
import type { EncodedTask } from './task.js'

/** What a run's steps follow from. */
export interface ConfiguredParts {
  readonly options: TrainOptions
  readonly recipe: Recipe
  readonly pretrained: PretrainedChoice | undefined
  readonly encoded: EncodedTask
  /** As it is before the first step. */
  readonly model: Module
  readonly device: Device
  readonly key: RunKey
  readonly plan: PrivatePlan | undefined
}

/**
 * All that decides what a step does, but a private run's data and key, which its ledger has. It must be the same on resume,
 * and is mixed into the key of a file.
 *
 * Guarantee. Two runs under one key file that train other parameters, or by other settings, have other configurations, and
 * so other noise. Under equal noise the difference of their releases would show their gradients.
 */
export function configuration(parts: ConfiguredParts): unknown {
  const { options, recipe, pretrained, encoded, model, plan, key, device } = parts
  return {
    ...(key.source === 'file' && { kernels: kernelsOf(device) }),
    recipe,
    plan: plan && { ...plan, recipe: undefined, epsilonAt: undefined, warnings: undefined },
    maxTokensPerMicrobatch: options.maxTokensPerMicrobatch ?? null,
    memoryBudget: options.memoryBudget ?? null,
    pretrained: pretrained && { weights: pretrained.fingerprint, ...pretrained.settings },
    trainable: [
      options.trainable ?? 'all',
      options.loraRank ?? null,
      options.loraAlpha ?? null,
      options.loraTargets ?? null,
      options.loraLayers ?? null,
    ],
    parameters: [...model.namedParameters()].map(([name, { shape, trainable }]) => [name, [...shape], trainable]),
    task: encoded.publicConstants,
    device: options.device ?? 'cpu',
    precision: options.precision ?? 'float32',
    ...(plan === undefined && { data: encoded.training.fingerprint() }),
    version,
  }
}

/** What the last bits of results depend on: under a key file equal noise must mean equal weights. */
function kernelsOf({ info: { name, instructionSet, threads } }: Device): unknown {
  return [process.platform, process.arch, process.versions.v8, instructionSet, name === 'cpu' ? null : threads]
}
