import { type AccountantName, createAccountant, type NeighboringRelation, solve } from '../accounting/index.js'
import { LoadEstimate } from '../autograd/load-balance.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import type { LossFunction, MicroBatch, UnitBatch } from '../nn/accumulate.js'
import type { Module } from '../nn/module.js'
import type { Telemetry } from '../nn/telemetry.js'
import type { Optimizer } from '../optim/optimizer.js'
import type { ClippingMode } from './clipping.js'
import { osKey, type RunKey, seedKey, trainingKey } from './keys.js'
import { type LoadNoise, loadNoise } from './load-noise.js'
import { PrivateOptimizer, type PrivateStepStatistics, type StepRecorder } from './private-optimizer.js'
import { type BatchSampler, PoissonSampler } from './sampling.js'
import { spentEpsilon } from './spent.js'

/** How a {@link PrivacyEngine} counts, and where its randomness comes from. */
export interface PrivacyEngineOptions {
  /** Default 'pld'. */
  accountant?: AccountantName
  /** What neighbouring data sets are; it goes to the accountant only. Default 'zero-out'. */
  relation?: NeighboringRelation
  /** Default: a fresh key from the operating system. */
  key?: RunKey
  /** Makes runs replayable and not private; for tests. Not together with `key`. */
  seed?: number | string
}

/** What is trained, on how many units, and with how much noise. */
export interface MakePrivateOptions {
  /** The model; refused where it couples units. */
  module: Module
  /** Makes the updates, from noised sums only. */
  optimizer: Optimizer
  /** The data set; only its length is read: the number of units N, public under zero-out. */
  data: { readonly length: number }
  /** sigma, in units of maxGradNorm. */
  noiseMultiplier: number
  /** C, the L2 bound of a unit's gradient. */
  maxGradNorm: number
  /** What the noised sum is divided by. Under zero-out also sampleRate * N unless sampleRate is given. */
  expectedBatchSize: number
  /** q. Default under zero-out: expectedBatchSize / N; must be given under add-or-remove-one. */
  sampleRate?: number
  /** Planned steps. Default under zero-out: epochs / q; must be given under add-or-remove-one. */
  steps?: number
  /** Passes over the data in expectation, instead of `steps`. Reads N, so not under add-or-remove-one. */
  epochs?: number
  /** Default 'flat'. */
  clipping?: ClippingMode
  /** Default: Poisson sampling with the engine's key. Another kind is refused: no accountant here knows it. */
  sampler?: BatchSampler
  /** Where steps are recorded before their updates, e.g. a ledger. */
  recorder?: StepRecorder
}

/** {@link MakePrivateOptions} with a budget in place of the noise. */
export type MakePrivateWithEpsilonOptions = Omit<MakePrivateOptions, 'noiseMultiplier'> & {
  /** Never exceeded by the planned steps. */
  targetEpsilon: number
  /** Choose it well below 1 / N. */
  targetDelta: number
}

/** sigma, q and steps of a run: what an accountant needs. */
export interface PrivacyPlan {
  readonly noiseMultiplier: number
  readonly sampleRate: number
  readonly steps: number
  readonly expectedBatchSize: number
}

/** A module and its optimizer, set up for private training. */
export interface PrivateTraining extends PrivacyPlan {
  readonly module: Module
  readonly optimizer: PrivateOptimizer
  /** How noisy the released loads of experts are, where the model has load estimates. */
  readonly loadNoise: LoadNoise | undefined
  /** Which units are in the batch of a step. */
  readonly sampler: BatchSampler
  /** Clips, sums, adds noise, updates and counts one step. */
  step<B extends UnitBatch>(
    step: number,
    microBatches: Iterable<MicroBatch<B>>,
    loss: LossFunction<B>,
    telemetry?: Telemetry,
  ): Promise<PrivateStepStatistics>
}

/**
 * Makes training private and tells what it has cost.
 *
 * Guarantee. With a key from the operating system or a secret file, the weights after t steps of a `PrivateTraining` are
 * (epsilon(delta), delta)-differentially private for the engine's relation, per unit of the data set; see docs/privacy.md
 * for what that does not cover.
 *
 * | case | result |
 * |---|---|
 * | a module that couples units | DpMoeError NOT_PRIVATE, naming the setting and the reason |
 * | a sampler that is not Poisson | DpMoeError NOT_PRIVATE |
 * | relation add-or-remove-one without sampleRate or steps, or with epochs | DpMoeError INVALID_ARGUMENT |
 * | noiseMultiplier <= 0, sampleRate outside (0, 1] | OutOfRangeError |
 * | no step made | epsilon 0 |
 */
export class PrivacyEngine {
  readonly relation: NeighboringRelation
  readonly accountant: AccountantName
  readonly key: RunKey
  readonly #spent: { plan: PrivacyPlan; steps: number }[] = []

  constructor({ accountant = 'pld', relation = 'zero-out', key, seed }: PrivacyEngineOptions = {}) {
    if (key !== undefined && seed !== undefined) {
      throw new DpMoeError('INVALID_ARGUMENT', 'PrivacyEngine: expected a key or a seed, got both')
    }
    createAccountant(accountant, relation) // refuse names it does not know now, not once the budget is spent
    this.accountant = accountant
    this.relation = relation
    this.key = key ?? (seed === undefined ? osKey() : seedKey(seed))
  }

  /** Solves for the noise that spends `targetEpsilon` at `targetDelta` over the planned steps, never more. */
  makePrivateWithEpsilon(options: MakePrivateWithEpsilonOptions): PrivateTraining {
    const { sampleRate, steps } = this.plan({ ...options, noiseMultiplier: 1 })
    const { noiseMultiplier } = solve({
      accountant: this.accountant,
      relation: this.relation,
      epsilon: options.targetEpsilon,
      delta: options.targetDelta,
      sampleRate,
      steps,
    })
    return this.makePrivate({ ...options, noiseMultiplier })
  }

  /** Sets a module and its optimizer up for training with the noise that is given. */
  makePrivate(options: MakePrivateOptions): PrivateTraining {
    const plan = this.plan(options)
    const { module, optimizer, maxGradNorm, clipping, recorder, sampler: given } = options
    refuseCoupling(module)
    if (given && given.kind !== 'poisson') {
      throw new DpMoeError(
        'NOT_PRIVATE',
        `sampler: expected Poisson sampling, got ${given.kind}: its batches have no amplification that the ` +
          `${this.accountant} accountant knows of; use PoissonSampler`,
      )
    }
    if (given && (given.sampleRate !== plan.sampleRate || given.population !== options.data.length)) {
      throw new DpMoeError('INVALID_ARGUMENT', 'sampler: its sampleRate and population must be those of the plan')
    }
    module.nameParameters()
    const key = trainingKey(this.key, this.#spent.length)
    const { noiseMultiplier, sampleRate, expectedBatchSize } = plan
    const sampler = given ?? new PoissonSampler(key, options.data.length, sampleRate)
    const wrapped = { optimizer, key, noiseMultiplier, maxGradNorm, clipping, expectedBatchSize, recorder }
    const privateOptimizer = new PrivateOptimizer(wrapped)
    const estimates = module.trainableParameters().filter((parameter) => parameter instanceof LoadEstimate)
    const noise = loadNoise(estimates, noiseMultiplier, expectedBatchSize)
    for (const estimate of estimates) estimate.smoothing = noise!.smoothing
    const entry = { plan, steps: 0 }
    this.#spent.push(entry)
    return {
      ...plan,
      module,
      optimizer: privateOptimizer,
      sampler,
      loadNoise: noise,
      step: (step, microBatches, loss, telemetry) => {
        entry.steps++
        return privateOptimizer.step(step, microBatches, loss, telemetry)
      },
    }
  }

  /** Upper bound on the epsilon spent by the steps made so far (started ones count), at `delta`. */
  epsilon(delta: number): number {
    const phases = this.#spent.map(({ plan, steps }) => ({ ...plan, steps }))
    return spentEpsilon(this.accountant, this.relation, phases, delta)
  }

  /** Rates and steps from what was given; under add-or-remove-one nothing may be derived from N. */
  plan(options: MakePrivateOptions): PrivacyPlan {
    const { data, expectedBatchSize, epochs, noiseMultiplier } = options
    if (!(noiseMultiplier > 0 && Number.isFinite(noiseMultiplier))) {
      throw new OutOfRangeError('noiseMultiplier', 'a finite number > 0', noiseMultiplier)
    }
    if (!(expectedBatchSize > 0 && Number.isFinite(expectedBatchSize))) {
      throw new OutOfRangeError('expectedBatchSize', 'a finite number > 0', expectedBatchSize)
    }
    if (this.relation === 'add-or-remove-one') {
      const { sampleRate, steps } = options
      if (sampleRate === undefined || steps === undefined || epochs !== undefined) {
        throw new DpMoeError(
          'INVALID_ARGUMENT',
          'relation add-or-remove-one: expected sampleRate, steps, expectedBatchSize and delta as stated constants and no ' +
            'epochs, because N is private there and nothing may be derived from it',
        )
      }
      return { noiseMultiplier, sampleRate: rate(sampleRate), steps: count(steps), expectedBatchSize }
    }
    const sampleRate = rate(options.sampleRate ?? Math.min(1, expectedBatchSize / Math.max(1, data.length)))
    if ((options.steps === undefined) === (epochs === undefined)) {
      throw new DpMoeError('INVALID_ARGUMENT', 'Expected either steps or epochs, got both or none')
    }
    const steps = options.steps ?? Math.max(1, Math.round(epochs! / sampleRate))
    return { noiseMultiplier, sampleRate, steps: count(steps), expectedBatchSize }
  }
}

/** Refuses a model with a setting under which one unit's gradient would read others. */
export function refuseCoupling(module: Module): void {
  const coupled = [...module.modules()].flatMap((part) =>
    part.couplesUnits().map((setting) => `${part.constructor.name}: ${setting}`),
  )
  if (coupled.length === 0) return
  throw new DpMoeError('NOT_PRIVATE', `Refused in private training, units would be coupled: ${coupled.join('; ')}`)
}

function rate(sampleRate: number): number {
  if (!(sampleRate > 0 && sampleRate <= 1)) throw new OutOfRangeError('sampleRate', 'a number in (0, 1]', sampleRate)
  return sampleRate
}

function count(steps: number): number {
  if (!(Number.isInteger(steps) && steps >= 1)) throw new OutOfRangeError('steps', 'an integer >= 1', steps)
  return steps
}
