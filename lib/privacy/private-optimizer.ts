import type { Release } from '../accounting/index.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { accumulateGradients, type LossFunction, type MicroBatch, type UnitBatch } from '../nn/accumulate.js'
import type { Telemetry } from '../nn/telemetry.js'
import type { Optimizer } from '../optim/optimizer.js'
import { ClippedSumSink } from './clipped-sum-sink.js'
import { type Clipping, type ClippingMode, clippingGroups, releasesOf } from './clipping.js'
import { keyTensor, type RunKey } from './keys.js'

/** What the native update takes as float32 must be below its infinity. */
const largest = 3e38

/** Noise below the normal numbers of float32 would be rounded to a few digits, or to none at all. */
const smallestNoise = 2 ** -126

/** What some step, of whatever training, is adding gradients to. */
const underWay = new WeakSet<Parameter>()

/** Where each step is recorded before its update is made. */
export interface StepRecorder {
  appendStep(step: number): Promise<void>
}

export interface PrivateOptimizerOptions {
  readonly optimizer: Optimizer
  readonly key: RunKey
  /** sigma: standard deviation of the noise in units of maxGradNorm, whatever the neighbouring relation. */
  readonly noiseMultiplier: number
  /** C: L2 bound of one unit's gradient over all trained parameters. */
  readonly maxGradNorm: number
  /** Default 'flat'. */
  readonly clipping?: ClippingMode
  /** What the noised sum is divided by: a stated constant. */
  readonly expectedBatchSize: number
  readonly recorder?: StepRecorder
}

/** What one step saw, without noise: private values, for `private/` of the run folder only. */
export interface PrivateStepStatistics {
  readonly units: number
  readonly rows: number
  /** Mean loss over the units of the batch; NaN for an empty one. */
  readonly loss: number
  /** Fraction of units whose gradient was scaled down. */
  readonly clippedFraction: number
  /** Units whose gradient was not finite; they contributed nothing. */
  readonly nonFiniteUnits: number
  /** Mean gradient norm before clipping. */
  readonly meanGradNorm: number
}

/**
 * One DP-SGD step (arXiv 1607.00133) around an ordinary optimizer: clip per unit, sum, add Gaussian noise, divide, update.
 *
 * Guarantee. The update reads the batch only through sum_u clip(g_u) + N(0, sigma^2 C^2), where each clipped gradient has
 * L2 norm at most C over all trained parameters together; everything after it is post-processing. Where the model has load
 * estimates, the sum of loads is released beside it: each release i has noise sigma C_i / sqrt(w_i) with weights that sum to
 * 1, so that both together are one Gaussian mechanism with sigma. The noise of a step is
 * drawn once, however the batch is split into micro-batches, and every (step, parameter, element) has its own place in the
 * key's stream: step numbers must rise. Nothing that was in the gradient buffers before the step is part of it.
 *
 * | case | the step |
 * |---|---|
 * | empty batch | noise, update and record as ever |
 * | a unit whose gradient is not finite | contributes nothing, is counted |
 * | a unit that is in the batch twice | DpMoeError INVALID_ARGUMENT: it would count for more than C |
 * | a step while another one on the same parameters is under way | DpMoeError INVALID_ARGUMENT: both would add to the same gradients |
 * | a step number that is not above that of the last update | DpMoeError INVALID_ARGUMENT: its noise would repeat |
 * | noiseMultiplier 0 | clips without noise: not private, for tests |
 * | the record cannot be written | no update is made, the error is thrown |
 * | an op on the device fails meanwhile, of the step or not, whoever waits for it | no update is made, an error is thrown |
 */
export class PrivateOptimizer {
  readonly device: Device
  readonly #options: PrivateOptimizerOptions
  readonly #key: Tensor
  #lastUpdate = -1

  constructor(options: PrivateOptimizerOptions) {
    const { noiseMultiplier, expectedBatchSize, optimizer } = options
    if (!(noiseMultiplier >= 0 && Number.isFinite(noiseMultiplier))) {
      throw new OutOfRangeError('noiseMultiplier', 'a finite number >= 0', noiseMultiplier)
    }
    if (!(Math.fround(expectedBatchSize) > 0 && expectedBatchSize <= largest)) {
      throw new OutOfRangeError('expectedBatchSize', `a finite number > 0, up to ${largest}`, expectedBatchSize)
    }
    if (noiseMultiplier * options.maxGradNorm > largest) {
      throw new OutOfRangeError('maxGradNorm', `at most ${largest} / noiseMultiplier`, options.maxGradNorm)
    }
    if (noiseMultiplier > 0 && noiseMultiplier * options.maxGradNorm < smallestNoise) {
      throw new OutOfRangeError('noiseMultiplier', `0, or at least 2^-126 / maxGradNorm`, noiseMultiplier)
    }
    this.device = (optimizer.parameters[0] as Parameter).device
    this.#options = options
    this.#key = keyTensor(this.device, options.key)
    clippingGroups(options.clipping ?? 'flat', options.maxGradNorm, optimizer.parameters) // refuse now, not at a step
  }

  /** How gradients are bounded, over the parameters that are trainable now. */
  get clipping(): Clipping {
    const { clipping = 'flat', maxGradNorm, optimizer } = this.#options
    return clippingGroups(clipping, maxGradNorm, optimizer.parameters)
  }

  /** What each step releases with noise, now that these parameters are trainable. */
  get releases(): Release[] {
    return releasesOf(this.clipping)
  }

  /** Standard deviation of the noise on each entry of the summed gradient: sigma C, and 1 % more where loads are released. */
  get noiseDeviation(): number {
    return this.#deviations().deviation
  }

  /** sigma bound / sqrt(weight) of each release (jointReleases); without noise all are 0. */
  #deviations(): { deviation: number; loadDeviation: number } {
    const of = ({ bound, weight }: Release) => (this.#options.noiseMultiplier * bound) / Math.sqrt(weight)
    const [gradient, load] = this.releases as [Release, Release?]
    return { deviation: of(gradient), loadDeviation: load ? of(load) : 0 }
  }

  /** One step over the micro-batches of step `step`'s batch (none: an empty batch). */
  async step<B extends UnitBatch>(
    step: number,
    microBatches: Iterable<MicroBatch<B>>,
    loss: LossFunction<B>,
    telemetry?: Telemetry,
  ): Promise<PrivateStepStatistics> {
    const parameters = this.#options.optimizer.parameters
    if (parameters.some((parameter) => underWay.has(parameter))) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `Expected one step at a time, got step ${step} while another is under way: await each step`,
      )
    }
    for (const parameter of parameters) underWay.add(parameter)
    try {
      return await this.#step(step, microBatches, loss, telemetry)
    } finally {
      for (const parameter of parameters) underWay.delete(parameter)
    }
  }

  [Symbol.dispose](): void {
    this.#key[Symbol.dispose]()
  }

  async #step<B extends UnitBatch>(
    step: number,
    microBatches: Iterable<MicroBatch<B>>,
    loss: LossFunction<B>,
    telemetry: Telemetry | undefined,
  ): Promise<PrivateStepStatistics> {
    const { optimizer, recorder, expectedBatchSize } = this.#options
    if (!(Number.isInteger(step) && step > this.#lastUpdate)) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `Expected a step number above ${this.#lastUpdate}, that of the last update, got ${step}: its noise would repeat`,
      )
    }
    const { clipping } = this
    const { failures } = this.device
    for (const { parameters } of clipping.groups) for (const parameter of parameters) parameter.gradient.fill(0)
    const recorded = recorder?.appendStep(step)
    recorded?.catch(() => {}) // awaited below; a failure there must not be an unhandled rejection while backward runs
    const statistics = this.device.keep(this.device.zeros([clipping.groups.length, 3], { dtype: 'float64' }))
    try {
      const sums = await accumulateGradients(
        this.device,
        eachUnitOnce(microBatches),
        loss,
        (units) => new ClippedSumSink(this.device, clipping, units, statistics),
        { random: { key: this.#key, step }, telemetry },
      )
      await recorded
      await this.device.synchronize()
      if (this.device.failures !== failures) {
        throw new DpMoeError(
          'ENGINE',
          `Step ${step} made no update: an op of the device failed meanwhile, so that ops of the step may not have run`,
        )
      }
      this.#lastUpdate = step
      const noise = { key: this.#key, ...this.#deviations() }
      this.device.scope(() => optimizer.update({ step, divisor: expectedBatchSize, noise }))
      const gradientGroups = clipping.groups.filter(({ release }) => release === 'gradient')
      return summarize(sums, await statistics.data(), gradientGroups.length)
    } finally {
      statistics[Symbol.dispose]()
    }
  }
}

/** The same micro-batches; throws once a unit comes a second time. */
function* eachUnitOnce<B extends UnitBatch>(microBatches: Iterable<MicroBatch<B>>): Generator<MicroBatch<B>> {
  const seen = new Set<number>()
  for (const microBatch of microBatches) {
    yield () => {
      const batch = microBatch()
      for (const unit of batch.layout.ids) {
        if (seen.has(unit)) {
          throw new DpMoeError('INVALID_ARGUMENT', `Expected each unit once in a batch, got unit ${unit} twice`)
        }
        seen.add(unit)
      }
      return batch
    }
  }
}

function summarize(
  sums: { units: number; rows: number; loss: number },
  statistics: ArrayLike<number>,
  groups: number,
): PrivateStepStatistics {
  let clipped = 0
  let nonFinite = 0
  let norms = 0
  for (let group = 0; group < groups; group++) {
    clipped += statistics[3 * group]!
    nonFinite = Math.max(nonFinite, statistics[3 * group + 1]!)
    norms += statistics[3 * group + 2]!
  }
  const units = Math.max(1, sums.units)
  return {
    units: sums.units,
    rows: sums.rows,
    loss: sums.units > 0 ? sums.loss / sums.units : Number.NaN,
    clippedFraction: clipped / (units * groups),
    nonFiniteUnits: nonFinite,
    meanGradNorm: norms / (units * groups),
  }
}
