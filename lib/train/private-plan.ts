import { dpSgd, EpsilonCurve, type NeighboringRelation, solve } from '../accounting/index.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { spentEpsilon } from '../privacy/spent.js'
import type { TrainOptions } from './options.js'
import { chooseRecipe, learningRateUnderNoise, type PublicFacts, type Recipe } from './recipe.js'

/** The privacy side of a run, fixed before its first step. */
export interface PrivatePlan {
  readonly relation: NeighboringRelation
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
  readonly expectedBatchSize: number
  readonly delta: number
  /** Upper bound on epsilon after all planned steps. */
  readonly epsilon: number
  /** About what a number of steps has spent, for progress. */
  readonly epsilonAt: (steps: number) => number
  readonly recipe: Recipe
  readonly warnings: readonly string[]
}

/** Works out rates, steps and noise; nothing is read from the data but N, and under add-or-remove-one not even that. */
export function planPrivacy(options: TrainOptions, facts: PublicFacts): PrivatePlan {
  const { examples } = facts
  const { relation = 'zero-out', targetEpsilon, noiseMultiplier: given } = options
  if ((targetEpsilon === undefined) === (given === undefined)) {
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected either targetEpsilon or noiseMultiplier, got both or none')
  }
  if (targetEpsilon !== undefined && !(targetEpsilon > 0 && Number.isFinite(targetEpsilon))) {
    throw new OutOfRangeError('targetEpsilon', 'a finite number > 0', targetEpsilon)
  }
  if (options.sampleRate !== undefined && !(options.sampleRate > 0 && options.sampleRate <= 1)) {
    throw new OutOfRangeError('sampleRate', 'a number in (0, 1]', options.sampleRate)
  }
  const strict = relation === 'add-or-remove-one'
  if (strict) requireConstants(options)
  const stated = strict ? Math.round(options.expectedBatchSize! / options.sampleRate!) : examples
  const recipe = chooseRecipe({ ...facts, examples: stated }, options)
  const sampleRate = options.sampleRate ?? Math.min(1, recipe.expectedBatchSize / examples)
  const { steps } = recipe
  const delta = options.targetDelta ?? 1 / examples
  if (!(delta > 0 && delta < 1)) throw new OutOfRangeError('targetDelta', 'a number in (0, 1)', delta)
  const noiseMultiplier =
    given ?? solve({ relation, epsilon: targetEpsilon!, delta, sampleRate, steps }).noiseMultiplier
  const epsilon = spentEpsilon('pld', relation, [{ noiseMultiplier, sampleRate, steps }], delta)
  const curve = new EpsilonCurve({ relation, delta, event: dpSgd(noiseMultiplier, sampleRate, 1) })
  return {
    relation,
    noiseMultiplier,
    sampleRate,
    steps,
    expectedBatchSize: recipe.expectedBatchSize,
    delta,
    epsilon,
    // The curve is about right; what is shown never passes what the whole plan costs, and ends there.
    epsilonAt: (made) => (made >= steps ? epsilon : Math.min(curve.at(made), epsilon)),
    recipe: { ...recipe, learningRate: options.learningRate ?? learningRateUnderNoise(recipe, noiseMultiplier) },
    warnings: [
      ...(delta > 1 / examples ? [largeDelta(delta, examples)] : []),
      ...(options.seed === undefined ? [] : [seeded]),
    ],
  }
}

function requireConstants(options: TrainOptions): void {
  const missing = (['sampleRate', 'steps', 'expectedBatchSize', 'targetDelta'] as const).filter(
    (name) => options[name] === undefined,
  )
  const why = 'the number of examples is private there, so nothing may be derived from it'
  if (missing.length > 0) {
    throw new DpMoeError('INVALID_ARGUMENT', `relation add-or-remove-one: expected ${missing.join(', ')}; ${why}`)
  }
  if (options.epochs !== undefined) {
    throw new DpMoeError('INVALID_ARGUMENT', `relation add-or-remove-one: epochs is refused, use steps; ${why}`)
  }
}

const seeded =
  'NOT private: who knows or guesses --seed can take the noise away again. Leave it out, or use --key-file, for a model ' +
  'that others may see'

function largeDelta(delta: number, examples: number): string {
  return (
    `delta ${delta} is larger than 1 / N = ${(1 / examples).toExponential(2)}: a mechanism that publishes one whole example ` +
    'at random would satisfy it. Choose a smaller --target-delta'
  )
}
