import type { Parameter } from '../autograd/parameter.js'
import { OutOfRangeError } from '../errors.js'
import { Optimizer, type OptimizerOptions, type Update } from './optimizer.js'

export interface SgdOptions extends OptimizerOptions {
  /** Default 0. */
  momentum?: number
  /** Default false. */
  nesterov?: boolean
}

/** Stochastic gradient descent: v = momentum v + g; w -= learningRate v (with nesterov: g + momentum v). */
export class Sgd extends Optimizer {
  constructor(
    parameters: Iterable<Parameter>,
    override readonly options: SgdOptions,
  ) {
    super(parameters, options)
    const { momentum = 0 } = options
    if (!(momentum >= 0 && momentum < 1)) throw new OutOfRangeError('momentum', 'a number in [0, 1)', momentum)
  }

  protected override updateParameter(parameter: Parameter, stream: number, learningRate: number, update: Update): void {
    const { momentum = 0, nesterov = false } = this.options
    parameter.device.run('noisySgd', {
      ...this.operands(parameter, stream, learningRate, update),
      velocity: momentum > 0 ? this.state(parameter, 'velocity') : undefined,
      momentum,
      nesterov,
    })
  }
}

/** `sgd(parameters, { learningRate: 0.1 })` */
export function sgd(parameters: Iterable<Parameter>, options: SgdOptions): Sgd {
  return new Sgd(parameters, options)
}
