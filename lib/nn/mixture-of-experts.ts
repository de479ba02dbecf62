import type { Activation } from '../autograd/activation.js'
import { add, jitter } from '../autograd/elementwise.js'
import { LoadEstimate, releasedBalanceLoss } from '../autograd/load-balance.js'
import { mixture } from '../autograd/mixture.js'
import type { Parameter } from '../autograd/parameter.js'
import { type Routing, route, routerLoss } from '../autograd/routing.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { ExpertAdapters } from './expert-adapters.js'
import type { Initializer } from './initializer.js'
import { Linear } from './linear.js'
import type { LowRankConfig } from './low-rank-adapter.js'
import { type ForwardContext, Module } from './module.js'

/** Ways of routing and balancing that read the whole batch, and why no clipping bounds them. */
const batchCoupled = {
  'batch-capacity': 'whether a token is dropped depends on the tokens of other units',
  'batch-priority': 'a token of another unit with a higher gate takes the place of this one',
  'batch-expert-choice': 'an expert chooses among the tokens of all units',
  'token-rounding': 'rounding the load of an expert drops or adds tokens depending on other units',
  'batch-balance-loss': 'a product of batch means has no gradient per unit',
  'load-bias': 'a selection bias made from un-noised loads carries them into the next step',
} as const

export type BatchCoupled = keyof typeof batchCoupled

export interface MixtureOfExpertsConfig {
  hiddenSize: number
  intermediateSize: number
  numExperts: number
  /** Default 1. */
  expertsPerToken?: number
  /** Default 'relu'. */
  activation?: Activation
  /** SwiGLU experts. Default false. */
  gated?: boolean
  /** Biases in the experts. Default true, false for gated ones. */
  bias?: boolean
  /** Divide the chosen gates by their sum. Default false (Switch), usual when expertsPerToken > 1. */
  normalizeGates?: boolean
  /** With `normalizeGates` and one expert a token: lets the router learn from gates that are 1 (`route`). Default false. */
  straightThroughGates?: boolean
  /** Bias of the router. Default false. */
  routerBias?: boolean
  /** Multiplies router inputs by U(1 - e, 1 + e) in training. Default 0. */
  routerJitter?: number
  /** Rows of one sequence that one expert takes at most; the rest pass by on the residual. Default 0: dropless. */
  capacityPerSequence?: number
  /** Weight of the balance loss. Default 0.01. */
  balanceLoss?: number
  /**
   * Balances against the load that past batches released with noise (`LoadEstimate`), in place of each unit's own load.
   * Default false.
   */
  releaseLoad?: boolean
  /** Weight of the router z-loss. Default 0. */
  zLoss?: number
  /**
   * Batch-coupled ways of other libraries, by name. Private training refuses each with its reason; none is offered without
   * privacy either, so that a model trains the same way in both.
   */
  batchCoupled?: readonly BatchCoupled[]
  /** Standard deviation of the first down-projections; 0 starts the layer as the identity of its residual. */
  downDeviation?: number
}

/** What a mixture layer gives: its output, and its loss per unit where it has one. */
export interface MixtureOutput {
  readonly y: Tensor
  /** [units], weighted already. */
  readonly loss: Tensor | undefined
  readonly routing: Routing
}

/** Top-k router in fp32 and dropless grouped experts; no unit's output reads another unit. */
export class MixtureOfExperts extends Module {
  readonly router: Linear
  readonly up: Parameter
  readonly upBias: Parameter | undefined
  readonly gate: Parameter | undefined
  readonly down: Parameter
  readonly downBias: Parameter | undefined
  adapters: ExpertAdapters | undefined
  readonly load: LoadEstimate | undefined
  readonly #config: Required<Omit<MixtureOfExpertsConfig, 'downDeviation'>>
  readonly #layer: number

  /** `layer` tells the layers of a model apart in telemetry and in keyed randomness. */
  constructor(init: Initializer, config: MixtureOfExpertsConfig, layer = 0) {
    super()
    const { hiddenSize, intermediateSize, numExperts, gated = false } = config
    const { expertsPerToken = 1, bias = !gated, downDeviation = 1 / Math.sqrt(intermediateSize) } = config
    for (const name of ['hiddenSize', 'intermediateSize', 'numExperts'] as const) {
      if (!(Number.isInteger(config[name]) && config[name] >= 1)) {
        throw new OutOfRangeError(name, 'an integer >= 1', config[name])
      }
    }
    if (!(Number.isInteger(expertsPerToken) && expertsPerToken >= 1 && expertsPerToken <= numExperts)) {
      throw new OutOfRangeError('expertsPerToken', `an integer in [1, ${numExperts}]`, expertsPerToken)
    }
    this.router = new Linear(init, { inputSize: hiddenSize, outputSize: numExperts, bias: config.routerBias ?? false })
    const wide = [numExperts, intermediateSize, hiddenSize]
    this.up = init.normal(wide, 1 / Math.sqrt(hiddenSize))
    this.upBias = bias ? init.zeros([numExperts, intermediateSize]) : undefined
    this.gate = gated ? init.normal(wide, 1 / Math.sqrt(hiddenSize)) : undefined
    const narrow = [numExperts, hiddenSize, intermediateSize]
    this.down = downDeviation === 0 ? init.zeros(narrow) : init.normal(narrow, downDeviation)
    this.downBias = bias ? init.zeros([numExperts, hiddenSize]) : undefined
    this.load = config.releaseLoad ? new LoadEstimate(init.state([numExperts]), expertsPerToken) : undefined
    this.#config = {
      hiddenSize,
      intermediateSize,
      numExperts,
      expertsPerToken,
      gated,
      bias,
      activation: config.activation ?? (gated ? 'silu' : 'relu'),
      normalizeGates: config.normalizeGates ?? false,
      straightThroughGates: config.straightThroughGates ?? false,
      routerBias: config.routerBias ?? false,
      routerJitter: config.routerJitter ?? 0,
      capacityPerSequence: config.capacityPerSequence ?? 0,
      balanceLoss: config.balanceLoss ?? 0.01,
      zLoss: config.zLoss ?? 0,
      releaseLoad: config.releaseLoad ?? false,
      batchCoupled: config.batchCoupled ?? [],
    }
    this.#layer = layer
  }

  forward(x: Tensor, context: ForwardContext): MixtureOutput {
    const { tape, telemetry } = context
    const coupled = this.couplesUnits()
    if (coupled.length > 0) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `MixtureOfExperts: not offered, ${coupled.join('; ')}; use per-unit routing`,
      )
    }
    const { numExperts, expertsPerToken, normalizeGates: normalize, capacityPerSequence, activation } = this.#config
    const { straightThroughGates: straightThrough } = this.#config
    const logits = this.router.forward(this.#jittered(x, context), context, {
      operation: 'router',
      outputType: 'float32',
    })
    const routing = route(tape, logits, { expertsPerToken, normalize, capacityPerSequence, straightThrough })
    const loads = telemetry?.expertLoads(`layer${this.#layer}`, numExperts)
    const { balanceLoss, zLoss: z } = this.#config
    const balance = this.load ? 0 : balanceLoss
    const wanted = loads !== undefined || (tape.sink !== undefined && (balance > 0 || z > 0))
    const ownLoss = wanted ? routerLoss(tape, logits, routing, { balance, z, loads }) : undefined
    const loss = balance > 0 || z > 0 ? ownLoss : undefined
    const loadLoss = this.load && tape.sink ? releasedBalanceLoss(tape, routing, this.load, balanceLoss) : undefined
    const y = this.adapters
      ? this.adapters.forward(x, routing.gate, routing.plan, this, activation, context)
      : mixture(tape, x, routing.gate, routing.plan, this, activation)
    return { y, loss: addLosses(context, [loss, loadLoss]), routing }
  }

  /** Puts adapters on the experts' weights and freezes these. */
  adapt(init: Initializer, config: LowRankConfig): ExpertAdapters {
    this.mergeAdapter()
    this.adapters = new ExpertAdapters(init, this, config)
    return this.adapters
  }

  /** Writes the adapters, if there are any, into the experts' weights and removes them. */
  mergeAdapter(): void {
    this.adapters?.mergeInto(this)
    this.adapters?.[Symbol.dispose]()
    this.adapters = undefined
  }

  override couplesUnits(): string[] {
    return this.#config.batchCoupled.map((name) => `${name}: ${batchCoupled[name]}`)
  }

  #jittered(x: Tensor, { tape, training, random }: ForwardContext): Tensor {
    const { routerJitter } = this.#config
    if (!training || routerJitter === 0) return x
    if (!random)
      throw new DpMoeError('INVALID_ARGUMENT', 'Router jitter: expected context.random in training, got none')
    return jitter(tape, x, routerJitter, random, this.#layer)
  }
}

/** Adds losses that may be missing. */
export function addLosses(context: ForwardContext, losses: readonly (Tensor | undefined)[]): Tensor | undefined {
  return losses.reduce<Tensor | undefined>((sum, loss) => {
    if (!loss) return sum
    return sum ? add(context.tape, sum, loss) : loss
  }, undefined)
}
