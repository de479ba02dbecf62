import type { Tensor } from '../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { multiply } from './elementwise.js'
import { meanPerUnit } from './embedding.js'
import { describe, layoutOf, RoutedLayout, requireAligned, requireUnits, UnitLayout } from './layout.js'
import type { Tape } from './tape.js'

export interface RoutingOptions {
  expertsPerToken: number
  /** Divide the chosen probabilities by their sum. */
  normalize: boolean
  /** At most this many rows of one sequence per expert, in row order; 0 is dropless. */
  capacityPerSequence: number
  /**
   * With one expert a token and `normalize`, where gates are 1: backward takes them for p / (p held constant), so that the
   * router learns. Default false: the router has no gradient from the gates.
   */
  straightThrough?: boolean
}

export interface Routing {
  /** Softmax over all experts, [rows, experts]. */
  readonly probabilities: Tensor
  /** Chosen experts, [rows, k] int32, most probable first, ties to the lowest index. */
  readonly expert: Tensor
  /** Weight of each choice, [rows, k]; 0 may stand for one that capacity dropped. */
  readonly gate: Tensor
  readonly plan: RoutedLayout
}

/** Chooses the k most probable experts of each row and orders the (row, choice) pairs by (expert, unit). */
export function route(tape: Tape, logits: Tensor, options: RoutingOptions): Routing {
  const layout = requireUnits('route', logits)
  const { device } = tape
  const [rows, experts] = logits.shape as [number, number]
  const { expertsPerToken: k, normalize, capacityPerSequence: capacity } = options
  if (!(Number.isInteger(k) && k >= 1 && k <= experts)) {
    throw new OutOfRangeError('expertsPerToken', `an integer in [1, ${experts}]`, k)
  }
  if (!(Number.isInteger(capacity) && capacity >= 0)) {
    throw new OutOfRangeError('capacityPerSequence', 'an integer >= 0 (0 is dropless)', capacity)
  }
  const probabilities = device.empty([rows, experts], { layout })
  const expert = device.empty([rows, k], { dtype: 'int32', layout })
  const gate = device.empty([rows, k], { layout })
  device.run('topKRouting', { logits, probabilities, expert, gate, rows, experts, k, normalize })
  // The plan counts a unit's rows; where units hold several sequences, choices over capacity get a gate of 0 instead.
  const several = capacity > 0 && layout.perSequence !== layout.perUnit
  const plan = planOf(expert, layout, { experts, k, capacity: several ? 0 : capacity })
  const straightThrough = options.straightThrough === true && normalize && k === 1
  tape.record([gate, probabilities], [logits], [], ([dGate, dProbabilities]) => {
    if (straightThrough && dGate) tape.addGradient(logits, throughGate(logits, expert, dGate))
    if (straightThrough && !dProbabilities) return
    const dLogits = device.empty(logits.shape, { layout })
    device.run('topKRoutingBackward', {
      dGate: straightThrough ? undefined : dGate,
      dProbabilities,
      probabilities,
      expert,
      gate,
      dLogits,
      rows,
      experts,
      k,
      normalize,
    })
    tape.addGradient(logits, dLogits)
  })
  if (!several) return { probabilities, expert, gate, plan }
  const kept = keptPerSequence(tape, expert, layout, { experts, k, capacity })
  return { probabilities, expert, gate: multiply(tape, gate, kept), plan }
}

interface PlanSize {
  readonly experts: number
  readonly k: number
  readonly capacity: number
}

function planOf(expert: Tensor, layout: UnitLayout, { experts, k, capacity }: PlanSize): RoutedLayout {
  const { device } = layout
  const { rows, units } = layout
  const segmentOffsets = device.empty([experts * units + 1], { dtype: 'int32' })
  const rowOfSlot = device.empty([rows * k], { dtype: 'int32' })
  const slotOf = device.empty([rows, k], { dtype: 'int32' })
  const offsets = layout.offsetsTensor
  const written = { segmentOffsets, rowOfSlot, slotOf }
  device.run('routingPlan', { expert, offsets, ...written, rows, units, experts, k, capacity })
  return new RoutedLayout(layout, segmentOffsets, rowOfSlot, slotOf, experts, k)
}

/** 1 for each choice within the capacity of its sequence, 0 for the others, [rows, k]. */
function keptPerSequence(tape: Tape, expert: Tensor, layout: UnitLayout, size: PlanSize): Tensor {
  const sequences = new UnitLayout(
    layout.device,
    layout.sequenceBounds,
    Int32Array.from({ length: layout.sequenceCount }, (_, i) => i),
  )
  const plan = planOf(expert, sequences, size)
  const ones = layout.device.empty([plan.slots], { layout: plan })
  ones.fill(1)
  return fromSlots(tape, ones, plan).withLayout(layout)
}

/** dGate (one hot - softmax): the gradient of p / (p held constant) of the chosen expert, which is that of log p. */
function throughGate(logits: Tensor, expert: Tensor, dGate: Tensor): Tensor {
  const { device } = logits
  const layout = layoutOf(logits)
  const [rows, classes] = logits.shape as [number, number]
  const common = { logits, targets: expert, logSumExp: device.empty([rows]), rows, classes }
  device.run('crossEntropy', { ...common, loss: device.empty([rows]) })
  const dLoss = device.empty([rows])
  device.run('add', { a: dGate, y: dLoss, size: rows, alpha: -1, beta: 0 })
  const dLogits = device.empty(logits.shape, { layout })
  device.run('crossEntropyBackward', { ...common, dLoss, dLogits })
  return dLogits
}

/**
 * out[r] = sum over the row's choices of gate * y[slot]: y [slots, d] in the plan's order -> [rows, d].
 * Plain form of the combine; `experts` in mixture.ts is the fused one.
 */
export function combine(tape: Tape, y: Tensor, gate: Tensor, plan: RoutedLayout): Tensor {
  if (layoutOf(y) !== plan)
    throw new DpMoeError('UNIT_MIXING', `combine: ${describe(y)} is not in the given plan's slots`)
  if (layoutOf(gate) !== plan.source) {
    throw new DpMoeError('UNIT_MIXING', `combine: gate ${describe(gate)} does not belong to the rows of the plan`)
  }
  const { device } = tape
  const rows = plan.source.rows
  const d = y.shape[1]!
  const out = device.empty([rows, d], { layout: plan.source, dtype: y.dtype })
  device.run('combineRows', {
    x: y,
    slot: plan.slotOf,
    weight: gate,
    y: out,
    rows,
    d,
    perRow: plan.expertsPerToken,
    accumulate: false,
  })
  tape.record([out], [y, gate], [], ([dOut]) => {
    const gateOfSlot = gateInSlots(tape, gate, plan)
    if (tape.tracks(y)) tape.addGradient(y, toSlots(tape, dOut!, plan, gateOfSlot))
    if (tape.tracks(gate)) {
      const dots = device.empty([plan.slots], { layout: plan })
      device.run('rowDot', {
        a: y,
        b: dOut!,
        bRows: plan.rowOfSlot,
        countOffsets: plan.segmentOffsets,
        y: dots,
        rows: plan.slots,
        d,
      })
      tape.addGradient(gate, fromSlots(tape, dots, plan))
    }
  })
  return out
}

/** Gate weights in slot order, [slots]. */
export function gateInSlots(tape: Tape, gate: Tensor, plan: RoutedLayout): Tensor {
  const slots = tape.device.empty([plan.slots], { layout: plan })
  tape.device.run('scatterToSlots', { values: gate, slotOf: plan.slotOf, slots, count: plan.slots })
  return slots
}

/** scale[slot] * x[row of slot], [rows, d] -> [slots, d]. */
export function toSlots(tape: Tape, x: Tensor, plan: RoutedLayout, scale?: Tensor): Tensor {
  const d = x.shape[1]!
  const y = tape.device.empty([plan.slots, d], { layout: plan, dtype: x.dtype })
  tape.device.run('gatherRows', {
    x,
    index: plan.rowOfSlot,
    scale,
    countOffsets: plan.segmentOffsets,
    y,
    rows: plan.slots,
    d,
  })
  return y
}

/** One value per slot back to [rows, k]; dropped choices get 0. */
export function fromSlots(tape: Tape, values: Tensor, plan: RoutedLayout): Tensor {
  const k = plan.expertsPerToken
  const y = tape.device.empty([plan.source.rows, k], { layout: plan.source })
  tape.device.run('combineRows', {
    x: values,
    slot: plan.slotOf,
    y,
    rows: plan.source.rows * k,
    d: 1,
    perRow: 1,
    accumulate: false,
  })
  return y
}

export interface RouterLossOptions {
  /** Weight of the balance loss E sum_e (f_e / k) P_e of each sequence (arXiv 2101.03961, per sequence as in 2412.19437). */
  balance: number
  /** Weight of the mean squared log-sum-exp of each sequence's router logits (arXiv 2202.08906). */
  z: number
  /** float64 [experts]: choices per expert are added to it. Private telemetry. */
  loads?: Tensor
}

/** Balance and z loss per unit, the mean over its sequences, [units]. Each reads its own sequence's rows only. */
export function routerLoss(tape: Tape, logits: Tensor, routing: Routing, options: RouterLossOptions): Tensor {
  requireAligned('routerLoss', logits, routing.probabilities)
  const layout = requireUnits('routerLoss', logits)
  const { device } = tape
  const [rows, experts] = logits.shape as [number, number]
  const k = routing.plan.expertsPerToken
  const sequences = layout.sequenceCount
  const loss = device.empty([sequences], { layout: layout.perSequence })
  const common = {
    logits,
    expert: routing.expert,
    offsets: layout.sequenceOffsets,
    rows,
    units: sequences,
    experts,
    k,
    balance: options.balance,
    z: options.z,
  }
  device.run('routerLoss', { ...common, probabilities: routing.probabilities, loss, loads: options.loads })
  tape.record([loss], [logits, routing.probabilities], [], ([dLoss]) => {
    const dProbabilities = device.empty(logits.shape, { layout })
    const dLogits = device.empty(logits.shape, { layout })
    device.run('routerLossBackward', { ...common, dLoss: dLoss!, dProbabilities, dLogits })
    tape.addGradient(routing.probabilities, dProbabilities)
    tape.addGradient(logits, dLogits)
  })
  return meanPerUnit(tape, loss)
}
