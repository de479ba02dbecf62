import fc from 'fast-check'
import t from 'tap'
import type { TrainOptions } from '../../lib/train/options.js'
import { planPrivacy } from '../../lib/train/private-plan.js'
import { chooseRecipe, learningRateUnderNoise } from '../../lib/train/recipe.js'

const options: TrainOptions = { train: 'texts.csv', output: 'run' }

t.test('defaults grow with the number of examples and stay within their bounds', (t) => {
  const sizes = fc.tuple(
    fc.integer({ min: 2, max: 1e6 }),
    fc.integer({ min: 2, max: 1e6 }),
    fc.integer({ min: 2, max: 20 }),
  )
  fc.assert(
    fc.property(sizes, ([a, b, classes]) => {
      const [small, large] = [Math.min(a, b), Math.max(a, b)].map((examples) =>
        chooseRecipe({ examples, classes }, options),
      )
      return (
        small!.expectedBatchSize <= large!.expectedBatchSize &&
        small!.steps <= large!.steps &&
        small!.expectedBatchSize <= Math.min(a, b) &&
        small!.steps >= 100 &&
        large!.steps <= 2000 &&
        small!.model.numExperts <= large!.model.numExperts
      )
    }),
  )
  t.end()
})

t.test('the recipe of the demo', (t) => {
  const { model, ...rest } = chooseRecipe({ examples: 4759, classes: 2 }, options)
  t.match(model, { modelType: 'mixture-classifier', numExperts: 32, expertsPerToken: 1, hiddenSize: 128, numLabels: 2 })
  t.match(rest, { expectedBatchSize: 831, steps: 208, optimizer: 'sgd', schedule: 'stable-decay', maxGradNorm: 0.25 })
  t.end()
})

t.test('what the user states is taken', (t) => {
  const stated = {
    expectedBatchSize: 64,
    maxGradNorm: 2,
    learningRate: 3,
    maxLength: 99,
    clipping: 'automatic',
  } as const
  const recipe = chooseRecipe({ examples: 1000, classes: 2 }, { ...options, ...stated, epochs: 5 })
  t.match(recipe, {
    expectedBatchSize: 64,
    maxGradNorm: 2,
    learningRate: 3,
    clipping: 'automatic',
    steps: Math.round((5 * 1000) / 64),
    tokenizer: { maxLength: 99 },
  })
  t.equal(chooseRecipe({ examples: 1000, classes: 2 }, { ...options, steps: 7 }).steps, 7)
  const plan = planPrivacy({ ...options, ...stated, noiseMultiplier: 1e3, steps: 7 }, { examples: 1000, classes: 2 })
  t.equal(plan.recipe.learningRate, 3, 'a stated learning rate is not lowered for the noise')
  t.throws(
    () => chooseRecipe({ examples: 1000, classes: 2 }, { ...options, model: { numLabels: 3 } }),
    /numLabels 2, got 3/,
  )
  t.throws(() => chooseRecipe({ examples: 1000, classes: 2 }, { ...options, model: { colour: 3 } }), {
    code: 'MODEL_FORMAT',
    message: /there is no 'colour'; a mixture-classifier has vocabularySize, .*numExperts/,
  })
  const attention = { modelType: 'switch-classifier' }
  t.throws(() => chooseRecipe({ examples: 1000, classes: 2 }, { ...options, model: attention }), {
    message: /hiddenSize: it is needed for a switch-classifier/,
  })
  const shown = [1, 2, 5, 6, 7].map(plan.epsilonAt)
  t.same(
    shown,
    [...shown].sort((a, b) => a - b),
  )
  t.equal(shown.at(-1), plan.epsilon, 'what is shown ends at what the plan costs')
  t.end()
})

t.test('noise lowers the learning rate of gradient descent, so that the walk by noise alone has length 1', (t) => {
  const recipe = chooseRecipe({ examples: 5000, classes: 2 }, options)
  const { steps, maxGradNorm, expectedBatchSize } = recipe
  t.equal(learningRateUnderNoise(recipe, 1e-6), 50 / maxGradNorm)
  const rate = learningRateUnderNoise(recipe, 10)
  t.ok(Math.abs((rate * 10 * maxGradNorm * Math.sqrt(steps)) / expectedBatchSize - 1) < 1e-12)
  t.equal(learningRateUnderNoise({ ...recipe, optimizer: 'adamw' }, 10), recipe.learningRate)
  t.end()
})

t.test('under add-or-remove-one nothing follows from the number of examples', (t) => {
  const stated = { sampleRate: 0.05, steps: 50, expectedBatchSize: 100, targetDelta: 1e-6 }
  const of = (examples: number) => {
    const {
      epsilonAt: _,
      warnings: __,
      ...plan
    } = planPrivacy(
      { ...options, relation: 'add-or-remove-one', targetEpsilon: 4, ...stated },
      { examples: examples, classes: 2 },
    )
    return plan
  }
  t.same(of(2000), of(150_000))
  t.end()
})
