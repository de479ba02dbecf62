import { LoadEstimate } from '../autograd/load-balance.js'
import type { Parameter } from '../autograd/parameter.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import type { Schedule } from './schedules.js'

/** Gaussian noise drawn inside the update; see NoisySgdParams in native/include/params.h. */
export interface UpdateNoise {
  /** ChaCha20 key, int32 [8]. */
  readonly key: Tensor
  /** Standard deviation added to each summed gradient entry: noiseMultiplier * maxGradNorm, without other releases. */
  readonly deviation: number
  /** The same for each summed load entry, where loads are released. */
  readonly loadDeviation?: number
}

export interface Update {
  /** Number of this step, from 0: position in the noise stream and in the schedule. */
  readonly step: number
  /** What the (noised) gradient sum is divided by: a stated constant, never a batch's real size in private training. */
  readonly divisor: number
  readonly noise?: UpdateNoise
}

export interface OptimizerOptions {
  /** Peak learning rate. */
  learningRate: number
  /** Factor on the learning rate by step. Default: constant. */
  schedule?: Schedule
  /** Decoupled weight decay (AdamW, SGD). Default 0. */
  weightDecay?: number
  /**
   * Keep the mean of the weights after this many updates and all later ones (Polyak-Ruppert averaging); it may be published
   * in their stead, as post-processing of what was released. Default: none.
   */
  averageFrom?: number
}

/** An update rule over gradient buffers: reads each parameter's gradient, changes the weights, clears the gradient. */
export abstract class Optimizer {
  readonly parameters: readonly Parameter[]
  readonly #state = new Map<string, Tensor>()
  #names: ReadonlyMap<Parameter, string> | undefined
  #updates = 0

  constructor(
    parameters: Iterable<Parameter>,
    readonly options: OptimizerOptions,
  ) {
    this.parameters = [...new Set(parameters)]
    if (this.parameters.length === 0)
      throw new DpMoeError('INVALID_ARGUMENT', 'Expected parameters to optimize, got none')
    const { learningRate, weightDecay = 0, averageFrom } = options
    if (!(learningRate >= 0 && Number.isFinite(learningRate))) {
      throw new OutOfRangeError('learningRate', 'a finite number >= 0', learningRate)
    }
    if (!(weightDecay >= 0 && Number.isFinite(weightDecay))) {
      throw new OutOfRangeError('weightDecay', 'a finite number >= 0', weightDecay)
    }
    if (averageFrom !== undefined && !(Number.isInteger(averageFrom) && averageFrom >= 1)) {
      throw new OutOfRangeError('averageFrom', 'an integer >= 1', averageFrom)
    }
  }

  /** Updates made so far (Adam's t). */
  get updates(): number {
    return this.#updates
  }

  /** Changes every trainable parameter by its gradient buffer and clears the buffer. An empty batch is an update too. */
  update(update: Update): void {
    if (!(update.divisor > 0 && Number.isFinite(update.divisor))) {
      throw new OutOfRangeError('divisor', 'a finite number > 0', update.divisor)
    }
    this.#updates++
    const rate = this.options.learningRate * (this.options.schedule?.(update.step) ?? 1)
    this.parameters.forEach((parameter, stream) => {
      if (!parameter.trainable) return
      if (parameter instanceof LoadEstimate) updateLoad(parameter, stream, update)
      else this.updateParameter(parameter, stream, rate * parameter.learningRateScale, update)
    })
  }

  protected abstract updateParameter(parameter: Parameter, stream: number, learningRate: number, update: Update): void

  /** The operands every noisy update op shares; `stream` is the parameter's place in the whole list. */
  protected operands(parameter: Parameter, stream: number, learningRate: number, update: Update) {
    const { averageFrom, weightDecay = 0 } = this.options
    const averaged = averageFrom !== undefined && this.#updates >= averageFrom
    const average = averaged ? this.state(parameter, 'average') : undefined
    const averageRate = averaged ? 1 / (this.#updates - averageFrom + 1) : 0
    return {
      weight: parameter.tensor,
      gradient: parameter.gradient,
      average,
      key: update.noise?.key,
      size: parameter.size,
      step: update.step,
      stream,
      noiseDeviation: update.noise?.deviation ?? 0,
      divisor: update.divisor,
      learningRate,
      weightDecay,
      averageRate,
    }
  }

  /** A state tensor of a parameter, zeros at first. */
  protected state(parameter: Parameter, kind: string): Tensor {
    const name = `${this.#nameOf(parameter)}.${kind}`
    let tensor = this.#state.get(name)
    if (!tensor) {
      tensor = parameter.device.keep(parameter.device.zeros(parameter.shape))
      this.#state.set(name, tensor)
    }
    return tensor
  }

  /** Averaged weights by parameter name, where `averageFrom` is set and reached. */
  averages(): ReadonlyMap<string, Tensor> {
    const averages = new Map<string, Tensor>()
    for (const parameter of this.parameters) {
      const name = this.#nameOf(parameter)
      const average = this.#state.get(`${name}.average`)
      if (average) averages.set(name, average)
    }
    return averages
  }

  /** The parameter's own name; its place where it has none, and behind it where another has the same. */
  #nameOf(parameter: Parameter): string {
    if (!this.#names) {
      const names = new Map<Parameter, string>()
      const taken = new Set<string>()
      this.parameters.forEach((one, place) => {
        const name = one.name !== '' && !taken.has(one.name) ? one.name : `${one.name}#${place}`
        names.set(one, name)
        taken.add(name)
      })
      this.#names = names
    }
    return this.#names.get(parameter)!
  }

  /** Everything a checkpoint needs to go on: tensors by name, and the number of updates. */
  snapshot(): { updates: number; tensors: ReadonlyMap<string, Tensor> } {
    return { updates: this.#updates, tensors: this.#state }
  }

  /** Puts a snapshot back; `tensors` hold the values by the names `snapshot` gave. */
  restore(updates: number, tensors: ReadonlyMap<string, { shape: readonly number[]; data: Float32Array }>): void {
    this.#updates = updates
    for (const tensor of this.#state.values()) tensor[Symbol.dispose]()
    this.#state.clear()
    const device: Device = this.parameters[0]!.device
    for (const [name, { shape, data }] of tensors) this.#state.set(name, device.keep(device.tensor(data, shape)))
  }
}

/** estimate = (1 - smoothing) estimate + smoothing * (noised sum of loads) / divisor; its gradient is minus the load. */
function updateLoad(estimate: LoadEstimate, stream: number, { step, divisor, noise }: Update): void {
  if (noise && noise.loadDeviation === undefined) {
    throw new DpMoeError('INVALID_ARGUMENT', `${estimate.name}: expected noise for released loads, got none`)
  }
  estimate.device.run('noisySgd', {
    weight: estimate.tensor,
    gradient: estimate.gradient,
    key: noise?.key,
    size: estimate.size,
    step,
    stream,
    noiseDeviation: noise?.loadDeviation ?? 0,
    divisor,
    learningRate: estimate.smoothing,
    momentum: 0,
    weightDecay: 1,
    averageRate: 0,
    nesterov: false,
  })
}
