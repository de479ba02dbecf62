import { linear } from '../autograd/linear.js'
import type { Parameter } from '../autograd/parameter.js'
import { combine, route, routerLoss } from '../autograd/routing.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import type { MixtureOutput } from './mixture-of-experts.js'
import { type ForwardContext, Module } from './module.js'

export interface LinearExpertsConfig {
  inputSize: number
  outputSize: number
  numExperts: number
  /** Default 1. */
  expertsPerToken?: number
  /** Divide the chosen gates by their sum. Default true. */
  normalizeGates?: boolean
  /** Standard deviation of the first expert weights; 0 (the default) starts them at zero. */
  deviation?: number
  /** Standard deviation of the first router weights. Default 1. */
  routerDeviation?: number
  /** Weight of the balance loss per unit; it acts on a trained router only. Default 0. */
  balanceLoss?: number
}

/**
 * A mixture whose experts are linear maps, [numExperts, outputSize, inputSize]: the router cuts the input space into
 * regions, each with a linear map of its own.
 */
export class LinearExperts extends Module {
  readonly router: Linear
  readonly weight: Parameter
  readonly #config: Required<LinearExpertsConfig>
  readonly #layer: number

  constructor(init: Initializer, config: LinearExpertsConfig, layer = 0) {
    super()
    const { inputSize, outputSize, numExperts } = config
    const { deviation = 0, routerDeviation = 1 } = config
    this.router = new Linear(init, { inputSize, outputSize: numExperts, bias: false, deviation: routerDeviation })
    const shape = [numExperts, outputSize, inputSize]
    this.weight = deviation === 0 ? init.zeros(shape) : init.normal(shape, deviation)
    this.#config = { expertsPerToken: 1, normalizeGates: true, balanceLoss: 0, ...config, deviation, routerDeviation }
    this.#layer = layer
  }

  /** x [rows, inputSize] -> y [rows, outputSize], float32: the experts' outputs are scores. */
  forward(x: Tensor, context: ForwardContext): MixtureOutput {
    const { tape, telemetry } = context
    const { numExperts, expertsPerToken, normalizeGates: normalize, balanceLoss: balance } = this.#config
    const logits = this.router.forward(x, context, { operation: 'router', outputType: 'float32' })
    const routing = route(tape, logits, { expertsPerToken, normalize, capacityPerSequence: 0 })
    const loads = telemetry?.expertLoads(`layer${this.#layer}`, numExperts)
    const loss = loads || balance > 0 ? routerLoss(tape, logits, routing, { balance, z: 0, loads }) : undefined
    const y = linear(tape, x, this.weight, undefined, {
      routed: routing.plan,
      operation: 'expert',
      outputType: 'float32',
    })
    return { y: combine(tape, y, routing.gate, routing.plan), loss: balance > 0 ? loss : undefined, routing }
  }
}
