import { type Activation, activate, gatedActivate } from '../autograd/activation.js'
import { add } from '../autograd/elementwise.js'
import type { RoutedLayout } from '../autograd/layout.js'
import { linear } from '../autograd/linear.js'
import type { ExpertParameters } from '../autograd/mixture.js'
import type { Parameter } from '../autograd/parameter.js'
import { combine } from '../autograd/routing.js'
import type { Tensor } from '../engine/tensor.js'
import type { Initializer } from './initializer.js'
import { LowRankAdapter, type LowRankConfig } from './low-rank-adapter.js'
import { type ForwardContext, Module } from './module.js'

/** Low-rank adapters on all matrices of a group of experts, whose own weights are frozen. */
export class ExpertAdapters extends Module {
  readonly gate: LowRankAdapter | undefined
  readonly up: LowRankAdapter
  readonly down: LowRankAdapter

  constructor(init: Initializer, { gate, up, down }: ExpertParameters, config: LowRankConfig) {
    super()
    for (const weight of [gate, up, down]) weight?.freeze()
    this.gate = gate && new LowRankAdapter(init, gate.shape, config)
    this.up = new LowRankAdapter(init, up.shape, config)
    this.down = new LowRankAdapter(init, down.shape, config)
  }

  /** What `mixture` computes with the adapted weights: x [rows, hidden] -> [rows, hidden]. */
  forward(
    x: Tensor,
    gateWeights: Tensor,
    plan: RoutedLayout,
    { gate, up, upBias, down, downBias }: ExpertParameters,
    activation: Activation,
    context: ForwardContext,
  ): Tensor {
    const { tape } = context
    const project = (from: Tensor, weight: Parameter, bias: Parameter | undefined, adapter: LowRankAdapter) => {
      const y = linear(tape, from, weight, bias, { routed: plan, operation: 'expert' })
      return add(tape, y, adapter.forward(from, context, undefined, plan), 1, adapter.scale)
    }
    const argument = project(x, up, upBias, this.up)
    const hidden =
      gate && this.gate
        ? gatedActivate(tape, project(x, gate, undefined, this.gate), argument, activation)
        : activate(tape, argument, activation)
    return combine(tape, project(hidden, down, downBias, this.down), gateWeights, plan)
  }

  mergeInto({ gate, up, down }: ExpertParameters): void {
    if (gate) this.gate?.mergeInto(gate)
    this.up.mergeInto(up)
    this.down.mergeInto(down)
  }
}
