import type { Tensor } from '../engine/tensor.js'
import { meanPerUnit, poolPerSequence } from './embedding.js'
import type { UnitLayout } from './layout.js'
import { linear } from './linear.js'
import { Parameter } from './parameter.js'
import type { Routing } from './routing.js'
import type { Tape } from './tape.js'

/**
 * What is publicly known of how often each expert of a layer is chosen: the batch's loads, released with noise inside the
 * mechanism of the gradient and smoothed over past steps. Holds f - k / E per expert, [experts]; 0, a uniform load, at first.
 *
 * It is trained like a parameter: a unit's "gradient" is minus its deviation d from a uniform load, and an update moves the
 * estimate by `smoothing` towards the noised mean of the d.
 *
 * Guarantee. Everything in it was noised before: it may drive a loss, and be published.
 */
export class LoadEstimate extends Parameter {
  readonly experts: number
  /** Weight of the newest release in the estimate; set before training from how noisy a release is. */
  smoothing = 0.1

  /** `tensor`: [experts], zeros at first. */
  constructor(
    tensor: Tensor,
    readonly expertsPerToken: number,
  ) {
    super(tensor)
    this.experts = tensor.size
  }

  /** Square of the L2 bound of a unit's d: with k different choices a token, ||h - k / E||^2 <= k - k^2 / E. */
  get squaredBound(): number {
    return this.expertsPerToken * (1 - this.expertsPerToken / this.experts)
  }
}

/** Root of the summed squares of the bounds: the L2 bound of a unit's loads over several layers. */
export function loadBound(estimates: readonly LoadEstimate[]): number {
  return Math.sqrt(estimates.reduce((sum, { squaredBound }) => sum + squaredBound, 0))
}

/**
 * The balance loss of the Switch Transformer with the load held at its public estimate (arXiv 2101.03961, eq. 4), per unit:
 * weight * E * sum_e (f_e - k / E) P_e(x), P_e the mean of the router's probabilities over the rows of each
 * of the unit's sequences, and the mean over these -> [units].
 *
 * Backward hands each unit's load to the sink as a gradient site of `estimate`, so that it is clipped, summed and noised
 * with the gradient. It is counted before any capacity; a unit without rows has none.
 */
export function releasedBalanceLoss(tape: Tape, routing: Routing, estimate: LoadEstimate, weight: number): Tensor {
  const { device } = tape
  const { experts, expertsPerToken: k } = estimate
  const layout = routing.plan.source
  const coefficients = device.empty([1, experts])
  device.run('add', { a: estimate.tensor, y: coefficients, size: experts, alpha: weight * experts, beta: 0 })
  const frozen = new Parameter(coefficients).freeze()
  const ofRows = linear(tape, routing.probabilities, frozen, undefined, { operation: 'balance loss' })
  const pooled = meanPerUnit(tape, poolPerSequence(tape, ofRows))
  const loss = device.empty([layout.units], { layout: layout.perUnit })
  device.run('add', { a: pooled, y: loss, size: layout.units, alpha: 1, beta: 0 })
  tape.record([loss], [pooled], [estimate], ([dLoss]) => {
    tape.addGradient(pooled, dLoss!.reshape([layout.units, 1]).withLayout(layout.perUnit))
    if (!tape.trains(estimate)) return
    const gradient = device.empty([layout.units, experts], { layout: layout.perUnit })
    const loads = device.empty([layout.units, experts])
    device.run('unitLoads', {
      expert: routing.expert,
      offsets: layout.offsetsTensor,
      loads,
      rows: layout.rows,
      units: layout.units,
      experts,
      k,
    })
    const uniform = uniformLoads(layout, experts, k)
    device.run('add', { a: loads, b: uniform, y: gradient, size: gradient.size, alpha: -k, beta: 1 })
    tape.addSite({ kind: 'perUnit', parameter: estimate, gradient, units: layout.units })
  })
  return loss
}

/** k / E for every expert of a unit that has rows, 0 for one that has none, [units, experts]. */
function uniformLoads(layout: UnitLayout, experts: number, k: number): Tensor {
  const values = new Float32Array(layout.units * experts)
  for (let unit = 0; unit < layout.units; unit++) {
    const isEmpty = layout.offsets[unit + 1] === layout.offsets[unit]
    if (!isEmpty) values.fill(k / experts, unit * experts, (unit + 1) * experts)
  }
  return layout.device.tensor(values, [layout.units, experts])
}
