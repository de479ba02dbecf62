import type { Parameter } from '../autograd/parameter.js'
import { OutOfRangeError } from '../errors.js'
import { Optimizer, type OptimizerOptions, type Update } from './optimizer.js'

export interface AdamOptions extends OptimizerOptions {
  /** Default 0.9. */
  beta1?: number
  /** Default 0.999. */
  beta2?: number
  /** Default 1e-8. */
  epsilon?: number
}

export interface DpAdamBCOptions extends AdamOptions {
  /** Smallest corrected second moment, gamma' of the paper. Default 1e-10. */
  varianceFloor?: number
}

/** Where weight decay goes, and whether the noise is taken out of the second moment. */
interface Variant {
  coupledDecay: boolean
  varianceFloor: number
}

class AdamFamily extends Optimizer {
  constructor(
    parameters: Iterable<Parameter>,
    override readonly options: AdamOptions,
    protected readonly variant: Variant,
  ) {
    super(parameters, options)
    for (const name of ['beta1', 'beta2'] as const) {
      const beta = options[name] ?? 0.9
      if (!(beta >= 0 && beta < 1)) throw new OutOfRangeError(name, 'a number in [0, 1)', beta)
    }
    if (!((options.epsilon ?? 1e-8) >= 0)) throw new OutOfRangeError('epsilon', 'a number >= 0', options.epsilon)
  }

  protected override updateParameter(parameter: Parameter, stream: number, learningRate: number, update: Update): void {
    const { beta1 = 0.9, beta2 = 0.999, epsilon = 1e-8 } = this.options
    const { coupledDecay, varianceFloor } = this.variant
    const deviation = update.noise?.deviation ?? 0
    const corrected = varianceFloor > 0
    parameter.device.run('noisyAdam', {
      ...this.operands(parameter, stream, learningRate, update),
      firstMoment: this.state(parameter, 'firstMoment'),
      secondMoment: this.state(parameter, 'secondMoment'),
      beta1,
      beta2,
      correction1: 1 - beta1 ** this.updates,
      correction2: 1 - beta2 ** this.updates,
      epsilon,
      noiseVariance: corrected ? (deviation / update.divisor) ** 2 : 0,
      varianceFloor,
      coupledDecay,
    })
  }
}

/** Adam (arXiv 1412.6980); weight decay is added to the gradient, after the noise. */
export class Adam extends AdamFamily {
  constructor(parameters: Iterable<Parameter>, options: AdamOptions) {
    super(parameters, options, { coupledDecay: true, varianceFloor: 0 })
  }
}

/** AdamW (arXiv 1711.05101): Adam with decoupled weight decay. */
export class AdamW extends AdamFamily {
  constructor(parameters: Iterable<Parameter>, options: AdamOptions) {
    super(parameters, options, { coupledDecay: false, varianceFloor: 0 })
  }
}

/** DP-AdamBC (arXiv 2312.14334): the noise's variance is subtracted from the second moment. */
export class DpAdamBC extends AdamFamily {
  constructor(parameters: Iterable<Parameter>, options: DpAdamBCOptions) {
    const { varianceFloor = 1e-10 } = options
    if (!(varianceFloor > 0)) throw new OutOfRangeError('varianceFloor', 'a number > 0', varianceFloor)
    super(parameters, options, { coupledDecay: false, varianceFloor })
  }
}

export function adam(parameters: Iterable<Parameter>, options: AdamOptions): Adam {
  return new Adam(parameters, options)
}

export function adamW(parameters: Iterable<Parameter>, options: AdamOptions): AdamW {
  return new AdamW(parameters, options)
}

export function dpAdamBC(parameters: Iterable<Parameter>, options: DpAdamBCOptions): DpAdamBC {
  return new DpAdamBC(parameters, options)
}
