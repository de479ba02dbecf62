import type { Device } from '../engine/device.js'
import { accumulateGradients, sumSink } from '../nn/accumulate.js'
import type { Telemetry } from '../nn/telemetry.js'
import type { Optimizer } from '../optim/optimizer.js'
import { keyTensor, type RunKey } from '../privacy/keys.js'
import type { PrivateTraining } from '../privacy/privacy-engine.js'
import type { BatchSampler } from '../privacy/sampling.js'
import { type Learner, lossOf } from './task.js'

/** What a step saw, computed without noise: private values. */
export interface StepStatistics {
  readonly units: number
  readonly rows: number
  readonly loss: number
  readonly [name: string]: number
}

/** One way of making steps, private or not; what the training loop drives. */
export interface StepMaker {
  step(step: number, telemetry: Telemetry | undefined): Promise<StepStatistics>
}

interface Parts {
  readonly device: Device
  readonly learner: Learner
  readonly maxRows: number
}

/** Steps with clipping and noise. */
export function privateSteps({ learner, maxRows }: Omit<Parts, 'device'>, training: PrivateTraining): StepMaker {
  return {
    async step(step, telemetry) {
      const units = training.sampler.sample(step)
      return { ...(await training.step(step, learner.microBatches(units, maxRows), lossOf, telemetry)) }
    },
  }
}

/** Steps without privacy: the mean gradient of a shuffled batch. */
export function plainSteps(
  { device, learner, maxRows }: Parts,
  optimizer: Optimizer,
  sampler: BatchSampler,
  key: RunKey,
): StepMaker {
  const random = keyTensor(device, key)
  return {
    async step(step, telemetry) {
      const units = sampler.sample(step)
      const batch = learner.microBatches(units, maxRows)
      const sums = await accumulateGradients(device, batch, lossOf, sumSink, {
        random: { key: random, step },
        telemetry,
      })
      device.scope(() => optimizer.update({ step, divisor: Math.max(1, sums.units) }))
      return { units: sums.units, rows: sums.rows, loss: sums.loss / Math.max(1, sums.units) }
    },
  }
}
