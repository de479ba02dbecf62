import type { Module } from '../nn/module.js'
import { adamW } from '../optim/adam.js'
import type { Optimizer } from '../optim/optimizer.js'
import { schedule } from '../optim/schedules.js'
import { sgd } from '../optim/sgd.js'
import type { Recipe } from './recipe.js'

/** The recipe's update rule over a model's trainable parameters. */
export function makeOptimizer(model: Module, recipe: Recipe, steps: number): Optimizer {
  const common = {
    learningRate: recipe.learningRate,
    schedule: schedule(recipe.schedule, steps, Math.floor(steps * recipe.warmup)),
  }
  const parameters = model.trainableParameters()
  return recipe.optimizer === 'sgd' ? sgd(parameters, common) : adamW(parameters, { ...common, weightDecay: 0 })
}
