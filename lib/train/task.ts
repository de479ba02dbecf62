import type { Tokenizer } from '../data/index.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import type { MicroBatch, UnitBatch } from '../nn/accumulate.js'
import type { ForwardContext, Module } from '../nn/module.js'
import type { Certificate } from '../privacy/certificate.js'
import type { PretrainedChoice } from './open-model.js'
import type { EvaluationResult } from './options.js'
import type { Recipe } from './recipe.js'

/** A task's files, read. What a run makes of them differs by task; the rest of a run is the same for all. */
export interface LoadedTask {
  /** Units of privacy: examples, or users. */
  readonly units: number
  readonly examples: number
  /** Training examples left out because their user had as many as are kept of one. */
  readonly leftOut: number
  /** Number of classes; 0 for a language model. */
  readonly classes: number
  /** Turns the texts into what the model of a recipe reads. */
  encode(
    recipe: Recipe,
    pretrained: PretrainedChoice | undefined,
    signal: AbortSignal | undefined,
  ): Promise<EncodedTask>
}

/** A task's examples, encoded. */
export interface EncodedTask {
  readonly training: TrainingData
  readonly tokenizer: Tokenizer
  /** What the certificate lists as public, beside what it lists of every run. */
  readonly publicConstants: Certificate['publicConstants']
  readonly warnings: readonly string[]
  /** Opens the model. */
  open(device: Device): Promise<Learner>
}

/** What a run draws its batches from: units by position. */
export interface TrainingData {
  /** Number of units. */
  readonly length: number
  /** Hash of all that training reads. */
  fingerprint(): string
}

/** Units on the device, with their loss. */
export interface LossBatch extends UnitBatch {
  /** [units], router losses included; a unit's reads that unit alone. */
  loss(context: ForwardContext): Tensor
}

/** A model with the data it learns from and is validated on. */
export interface Learner {
  readonly model: Module
  /** The batch of the given training units, cut so that no micro-batch has more than `maxRows` rows; units are never split. */
  microBatches(units: Int32Array, maxRows: number): MicroBatch<LossBatch>[]
  /** How well the model does on the validation data; undefined where there are none. */
  validate(signal: AbortSignal | undefined): Promise<EvaluationResult | undefined>
  /** Writes the model, with plain weights: adapters are merged into them. */
  save(folder: string): Promise<void>
}

/** The loss of each unit of a batch. */
export function lossOf(batch: LossBatch, context: ForwardContext): Tensor {
  return batch.loss(context)
}
