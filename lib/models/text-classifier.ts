import { z } from 'zod'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { Initializer } from '../nn/initializer.js'
import type { ForwardContext, Module } from '../nn/module.js'
import { MixtureClassifier } from './mixture-classifier.js'
import { SwitchClassifier } from './switch-classifier.js'
import type { TextBatch } from './text-batch.js'

const positive = z.int().positive()

const mixtureSchema = z.strictObject({
  modelType: z.literal('mixture-classifier'),
  vocabularySize: positive,
  numLabels: z.int().min(2),
  hiddenSize: positive,
  numExperts: positive,
  expertsPerToken: positive.default(1),
  normalizeGates: z.boolean().default(false),
  routerLearningRate: z.number().nonnegative().default(0.1),
  routerDeviation: z.number().positive().default(12),
  biasScale: z.number().positive().default(0.3),
})

const switchSchema = z.strictObject({
  modelType: z.literal('switch-classifier'),
  vocabularySize: positive,
  numLabels: z.int().min(2),
  hiddenSize: positive,
  numLayers: positive,
  numAttentionHeads: positive,
  intermediateSize: positive,
  numExperts: positive,
  expertsPerToken: positive.default(1),
  sparseEvery: z.int().nonnegative().default(2),
  maxPositions: positive,
  balanceLoss: z.number().nonnegative().default(0.01),
  releaseLoad: z.boolean().default(false),
  dropout: z.number().min(0).lt(1).default(0),
})

export const classifierConfigSchema = z.discriminatedUnion('modelType', [mixtureSchema, switchSchema])

/**
 * Shape of a text classifier as config.json holds it; `modelType` tells which.
 *
 * @useDeclaredType
 */
export type ClassifierConfig = z.infer<typeof classifierConfigSchema>

/** A model that gives each text a score for every class. */
export interface TextClassifier extends Module {
  /** [sequences, numLabels]; a unit is one sequence unless it is a user with several. */
  logits(batch: TextBatch, context: ForwardContext): Tensor
  /** [units], router losses included. */
  loss(batch: TextBatch, context: ForwardContext): Tensor
}

/** Builds a classifier with first weights from a public seed. */
export function createClassifier(device: Device, config: ClassifierConfig, seed: number | string = 0): TextClassifier {
  const init = new Initializer(device, seed)
  switch (config.modelType) {
    case 'mixture-classifier':
      return new MixtureClassifier(init, config)
    case 'switch-classifier':
      return new SwitchClassifier(init, config)
  }
}

/** Parses a classifier configuration; names the field that is wrong. */
export function parseClassifierConfig(value: unknown, where: string): ClassifierConfig {
  const parsed = classifierConfigSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new DpMoeError('MODEL_FORMAT', [where, ...issue.path.map(String), reason(issue, value)].join(': '))
}

/** What is wrong with a field; where it is unknown or missing, also the names there are. */
function reason(issue: z.core.$ZodIssue, value: unknown): string {
  const { modelType } = (value ?? {}) as { modelType?: unknown }
  const schemas = [mixtureSchema, switchSchema]
  const schema = schemas.find(({ shape }) => shape.modelType.value === modelType)
  if (issue.path[0] === 'modelType') return `expected ${schemas.map(({ shape }) => shape.modelType.value).join(' or ')}`
  if (!schema) return issue.message
  if (issue.code === 'unrecognized_keys') {
    return `there is no '${issue.keys[0]}'; a ${modelType} has ${Object.keys(schema.shape).slice(1).join(', ')}`
  }
  const missing = issue.path[0] !== undefined && !(issue.path[0] in (value as object))
  return missing ? `it is needed for a ${modelType}` : issue.message
}
