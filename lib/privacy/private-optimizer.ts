import type { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { OutOfRangeError } from '../errors.js'
import { accumulateGradients, type LossFunction, type MicroBatch, type UnitBatch } from '../nn/accumulate.js'
import type { Telemetry } from '../nn/telemetry.js'
import type { Optimizer } from '../optim/optimizer.js'
import { ClippedSumSink } from './clipped-sum-sink.js'
import { type Clipping, type ClippingMode, clippingGroups } from './clipping.js'
import { keyTensor, type RunKey } from './keys.js'

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
 * L2 norm at most C over all trained parameters together; everything after it is post-processing. The noise of a step is
 * drawn once, however the batch is split into micro-batches, and every (step, parameter, element) has its own place in the
 * key's stream.
 *
 * | case | the step |
 * |---|---|
 * | empty batch | noise, update and record as ever |
 * | a unit whose gradient is not finite | contributes nothing, is counted |
 * | noiseMultiplier 0 | clips without noise: not private, for tests |
 * | the record cannot be written | no update is made, the error is thrown |
 */
export class PrivateOptimizer {
  readonly clipping: Clipping
  readonly device: Device
  readonly #options: PrivateOptimizerOptions
  readonly #key: Tensor

  constructor(options: PrivateOptimizerOptions) {
    const { noiseMultiplier, maxGradNorm, expectedBatchSize, optimizer, clipping = 'flat' } = options
    if (!(noiseMultiplier >= 0 && Number.isFinite(noiseMultiplier))) {
      throw new OutOfRangeError('noiseMultiplier', 'a finite number >= 0', noiseMultiplier)
    }
    if (!(expectedBatchSize > 0 && Number.isFinite(expectedBatchSize))) {
      throw new OutOfRangeError('expectedBatchSize', 'a finite number > 0', expectedBatchSize)
    }
    this.clipping = clippingGroups(clipping, maxGradNorm, optimizer.parameters)
    this.device = (optimizer.parameters[0] as Parameter).device
    this.#options = options
    this.#key = keyTensor(this.device, options.key)
  }

  /** Standard deviation of the noise on each entry of the summed gradient. */
  get noiseDeviation(): number {
    return this.#options.noiseMultiplier * this.#options.maxGradNorm
  }

  /** One step over the micro-batches of step `step`'s batch (none: an empty batch). */
  async step<B extends UnitBatch>(
    step: number,
    microBatches: Iterable<MicroBatch<B>>,
    loss: LossFunction<B>,
    telemetry?: Telemetry,
  ): Promise<PrivateStepStatistics> {
    const { optimizer, recorder, expectedBatchSize } = this.#options
    const recorded = recorder?.appendStep(step)
    recorded?.catch(() => {}) // awaited below; a failure there must not be an unhandled rejection while backward runs
    const statistics = this.device.keep(this.device.zeros([this.clipping.groups.length, 3], { dtype: 'float64' }))
    try {
      const sums = await accumulateGradients(
        this.device,
        microBatches,
        loss,
        (units) => new ClippedSumSink(this.device, this.clipping, units, statistics),
        { random: { key: this.#key, step }, telemetry },
      )
      await recorded
      const noise = { key: this.#key, deviation: this.noiseDeviation }
      this.device.scope(() => optimizer.update({ step, divisor: expectedBatchSize, noise }))
      return summarize(sums, await statistics.data(), this.clipping.groups.length)
    } finally {
      statistics[Symbol.dispose]()
    }
  }

  [Symbol.dispose](): void {
    this.#key[Symbol.dispose]()
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
