import type { BagOptions } from '../data/bag.js'
import type { Tokenizer } from '../data/index.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import type { PretrainedShape } from '../models/pretrained-shape.js'
import { type ClassifierConfig, parseClassifierConfig } from '../models/text-classifier.js'
import type { ScheduleName } from '../optim/schedules.js'
import type { ClippingMode } from '../privacy/clipping.js'
import type { TrainOptions } from './options.js'

/** What a recipe may depend on: public numbers only. */
export interface PublicFacts {
  /** Number of training examples, or under add-or-remove-one its stated stand-in expectedBatchSize / sampleRate. */
  readonly examples: number
  /** 0 for a language model. */
  readonly classes: number
  /** The pretrained model that training starts from, if any. */
  readonly pretrained?: PretrainedShape | undefined
}

export interface TokenizerChoice {
  readonly vocabularySize: number
  readonly ngrams: number
  readonly maxLength: number
}

/** Everything about a run that has a default. */
export interface Recipe {
  readonly model: ClassifierConfig | PretrainedShape
  readonly tokenizer: TokenizerChoice
  readonly bag: BagOptions | undefined
  readonly expectedBatchSize: number
  readonly steps: number
  readonly optimizer: 'sgd' | 'adamw'
  readonly learningRate: number
  readonly schedule: ScheduleName
  /** Fraction of the steps over which the learning rate rises. */
  readonly warmup: number
  readonly maxGradNorm: number
  readonly clipping: ClippingMode
}

/** Default longest text, in tokens: a bag of words takes long texts at little cost, attention does not. */
export const defaultMaxLength = { 'mixture-classifier': 1024, 'switch-classifier': 256, pretrained: 256 } as const

/** Peak learning rate of Adam on a pretrained model: small for its own weights, larger for what starts at nothing. */
const learningRateOfPretrained = { all: 5e-4, head: 2e-3, bias: 2e-3, lora: 1e-3 } as const

/** Peak learning rate of the mixture classifier without clipping: beyond it training overshoots. */
const learningRateUnclipped = 100

/** The same where gradients are clipped, times the clipping norm: the furthest that a step can go. */
const furthestStep = 50

/**
 * Chooses what the user left open, from public numbers only.
 *
 * Large batches and few steps suit private training: the noise on the mean falls with the batch, while sigma grows
 * only slowly with the sampling rate. The batch grows as N^(1/4) and the steps as N^(3/5), so that larger data sets
 * spend their budget on more steps of a smaller sampling rate; fitted on data sets of 4,000 to 67,000 texts with 2, 4
 * and 20 classes. The learning rate is for training without privacy; {@link learningRateUnderNoise}
 * gives that of a private run.
 */
export function chooseRecipe(facts: PublicFacts, options: TrainOptions): Recipe {
  const { examples, classes } = facts
  const batch = options.sampleRate === undefined ? 100 * examples ** 0.25 : options.sampleRate * examples
  const expectedBatchSize = options.expectedBatchSize ?? Math.max(1, Math.round(Math.min(examples, batch)))
  const planned = Math.round(Math.min(2000, Math.max(100, 1.29 * examples ** 0.6)))
  const sampleRate = options.sampleRate ?? Math.min(1, expectedBatchSize / examples)
  const passes = options.epochs && Math.max(1, Math.round(options.epochs / sampleRate))
  const model = facts.pretrained ?? chooseModel(facts, options)
  const bagOfWords = model.modelType === 'mixture-classifier'
  if (model.modelType !== 'pretrained' && model.numLabels !== classes) {
    throw new DpMoeError('INVALID_ARGUMENT', `model: expected numLabels ${classes}, got ${model.numLabels}`)
  }
  const common = {
    model,
    tokenizer: {
      vocabularySize: model.vocabularySize,
      ngrams: 1,
      maxLength: options.maxLength ?? Math.min(defaultMaxLength[model.modelType], longestOf(model)),
    },
    expectedBatchSize,
    steps: options.steps ?? passes ?? planned,
    clipping: options.clipping ?? 'flat',
  }
  return bagOfWords
    ? {
        ...common,
        bag: { weighting: 'log', normalise: true },
        optimizer: 'sgd',
        learningRate: options.learningRate ?? learningRateUnclipped,
        schedule: 'stable-decay',
        warmup: 0,
        maxGradNorm: options.maxGradNorm ?? 0.25,
      }
    : {
        ...common,
        bag: undefined,
        optimizer: 'adamw',
        learningRate:
          options.learningRate ??
          (model.modelType === 'pretrained' ? learningRateOfPretrained[options.trainable ?? 'all'] : 1e-3),
        schedule: 'cosine',
        warmup: 0.05,
        maxGradNorm: options.maxGradNorm ?? 1,
      }
}

/**
 * The learning rate of a private run. Plain gradient descent walks about learningRate * sigma * C * sqrt(steps) / B by
 * noise alone; a walk of length 1 is what the mixture classifier bears. Adam divides by the noise itself, so its rate stays.
 */
export function learningRateUnderNoise(recipe: Recipe, noiseMultiplier: number): number {
  const { optimizer, learningRate, maxGradNorm, steps, expectedBatchSize } = recipe
  if (optimizer === 'adamw') return learningRate
  return Math.min(furthestStep, expectedBatchSize / (noiseMultiplier * Math.sqrt(steps))) / maxGradNorm
}

/** Longest sequence that a model reads. */
function longestOf(model: Recipe['model']): number {
  return model.modelType === 'mixture-classifier' ? Number.POSITIVE_INFINITY : (model.maxPositions ?? Infinity)
}

function chooseModel({ examples, classes }: PublicFacts, { model = {} }: TrainOptions): ClassifierConfig {
  const common = { modelType: 'mixture-classifier', vocabularySize: 32768, numLabels: classes }
  const size = examples < 16000 ? { numExperts: 32, hiddenSize: 128 } : { numExperts: 64, hiddenSize: 256 }
  return parseClassifierConfig(
    { ...common, ...((model.modelType ?? common.modelType) === common.modelType && size), ...model },
    'model',
  )
}

/** @throws OutOfRangeError where texts may be longer than the model's positions */
export function requireLength({ model, tokenizer: { maxLength } }: Recipe): void {
  const longest = model.modelType === 'pretrained' ? model.maxPositions : null
  if (longest === null || maxLength <= longest) return
  throw new OutOfRangeError('maxLength', `at most ${longest}, the model's positions`, maxLength)
}

/** @throws DpMoeError INVALID_ARGUMENT where the tokenizer has tokens that the model does not know */
export function requireVocabulary({ model }: Recipe, tokenizer: Tokenizer): void {
  if (tokenizer.vocabularySize <= model.vocabularySize) return
  throw new DpMoeError(
    'INVALID_ARGUMENT',
    `model: expected a vocabularySize of at least the tokenizer's ${tokenizer.vocabularySize}, got ${model.vocabularySize}`,
  )
}

/** What was chosen, in lines for people. */
export function describeRecipe(recipe: Recipe, examples: number, plan?: PrivacyNumbers): string[] {
  const { model, tokenizer } = recipe
  const lines = [
    `model: ${model.modelType === 'pretrained' ? `pretrained ${model.kind}` : model.modelType}, ` +
      (model.numExperts > 0 ? `${model.numExperts} experts of ${model.expertsPerToken} per token, ` : '') +
      `hidden size ${model.hiddenSize}, ` +
      `a vocabulary of ${tokenizer.vocabularySize}, at most ${tokenizer.maxLength} tokens a text`,
    `optimizer: ${recipe.optimizer}, learning rate ${short(recipe.learningRate)} (${recipe.schedule}), expected batch ` +
      `${recipe.expectedBatchSize} of ${examples} examples, ${recipe.steps} steps`,
  ]
  if (plan) {
    lines.push(
      `privacy: ${plan.relation}, noise multiplier ${short(plan.noiseMultiplier)}, max grad norm ${recipe.maxGradNorm} ` +
        `(${recipe.clipping}), sample rate ${short(plan.sampleRate)}, ` +
        `epsilon ${short(plan.epsilon)} at delta ${short(plan.delta)}`,
    )
  }
  return lines
}

/** Four significant digits: 3, 0.08, 1.563e-5. */
function short(value: number): string {
  const rounded = Number(value.toPrecision(4))
  return rounded !== 0 && Math.abs(rounded) < 1e-3 ? rounded.toExponential() : String(rounded)
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
