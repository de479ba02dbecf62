import type { BagOptions } from '../data/bag.js'
import { DpMoeError } from '../errors.js'
import { type ClassifierConfig, parseClassifierConfig } from '../models/text-classifier.js'
import type { ScheduleName } from '../optim/schedules.js'
import type { ClippingMode } from '../privacy/clipping.js'
import type { TrainOptions } from './options.js'

/** What a recipe may depend on: public numbers only. */
export interface PublicFacts {
  /** Number of training examples, or under add-or-remove-one its stated stand-in expectedBatchSize / sampleRate. */
  readonly examples: number
  readonly classes: number
  /** undefined without privacy. */
  readonly epsilon: number | undefined
}

export interface TokenizerChoice {
  readonly vocabularySize: number
  readonly ngrams: number
  readonly maxLength: number
}

/** Everything about a run that has a default. */
export interface Recipe {
  readonly model: ClassifierConfig
  readonly tokenizer: TokenizerChoice
  readonly bag: BagOptions | undefined
  readonly expectedBatchSize: number
  readonly epochs: number
  readonly optimizer: 'sgd' | 'adamw'
  readonly learningRate: number
  readonly momentum: number
  readonly schedule: ScheduleName
  /** Fraction of the steps over which the learning rate rises. */
  readonly warmup: number
  readonly maxGradNorm: number
  readonly clipping: ClippingMode
  /** Fraction of the steps after which weights are averaged for the release. */
  readonly averageFrom: number
}

/** Default longest text, in tokens. */
export const defaultMaxLength = 256

/**
 * Chooses what the user left open, from public numbers only.
 *
 * Large batches and few steps suit private training: the noise on the mean falls with the batch, and sigma grows only
 * slowly with the sampling rate.
 */
export function chooseRecipe(facts: PublicFacts, options: TrainOptions): Recipe {
  const { examples, classes, epsilon } = facts
  const sampleRate = epsilon === undefined ? Math.min(0.2, 256 / examples) : 0.2
  const expectedBatchSize = options.expectedBatchSize ?? Math.max(1, Math.round(examples * sampleRate))
  const tokenizer = { vocabularySize: 32768, ngrams: 1, maxLength: options.maxLength ?? defaultMaxLength }
  const defaults = {
    modelType: 'mixture-classifier',
    vocabularySize: tokenizer.vocabularySize,
    numLabels: classes,
    hiddenSize: 128,
    numExperts: 16,
  }
  const model = parseClassifierConfig({ ...defaults, ...options.model }, 'model')
  if (model.numLabels !== classes) {
    throw new DpMoeError('INVALID_ARGUMENT', `model: expected numLabels ${classes}, got ${model.numLabels}`)
  }
  return {
    model,
    tokenizer: { ...tokenizer, vocabularySize: model.vocabularySize },
    bag: model.modelType === 'mixture-classifier' ? { weighting: 'log', normalise: true } : undefined,
    expectedBatchSize,
    epochs: options.epochs ?? 40,
    optimizer: 'sgd',
    learningRate: options.learningRate ?? 50,
    momentum: 0,
    schedule: 'constant',
    warmup: 0,
    maxGradNorm: options.maxGradNorm ?? 0.35,
    clipping: options.clipping ?? 'flat',
    averageFrom: 0.5,
  }
}

/** What was chosen, in lines for people. */
export function describeRecipe(recipe: Recipe, examples: number, plan?: PrivacyNumbers): string[] {
  const { model, tokenizer } = recipe
  const lines = [
    `model: ${model.modelType}, ${model.numExperts} experts of ${model.expertsPerToken} per token, hidden size ${model.hiddenSize}, ` +
      `${tokenizer.vocabularySize} hashed ${tokenizer.ngrams > 1 ? `words and runs of up to ${tokenizer.ngrams}` : 'words'}, ` +
      `at most ${tokenizer.maxLength} words a text`,
    `optimizer: ${recipe.optimizer}, learning rate ${recipe.learningRate} (${recipe.schedule}), expected batch ` +
      `${recipe.expectedBatchSize} of ${examples} examples`,
  ]
  if (plan) {
    lines.push(
      `privacy: ${plan.relation}, noise multiplier ${plan.noiseMultiplier.toPrecision(4)}, max grad norm ${recipe.maxGradNorm} ` +
        `(${recipe.clipping}), sample rate ${plan.sampleRate.toPrecision(4)}, ${plan.steps} steps, ` +
        `epsilon ${plan.epsilon.toPrecision(4)} at delta ${plan.delta.toPrecision(3)}`,
    )
  }
  return lines
}

/** What of a privacy plan is shown to people. */
interface PrivacyNumbers {
  readonly relation: string
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
  readonly epsilon: number
  readonly delta: number
}
