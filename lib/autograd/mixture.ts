import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { type Activation, activationBackward, activationCode } from './activation.js'
import { describe, layoutOf, type RoutedLayout, requireShared } from './layout.js'
import type { Parameter } from './parameter.js'
import { fromSlots, gateInSlots, toSlots } from './routing.js'
import type { Tape } from './tape.js'

/** Weights of a group of two-layer experts: up [experts, intermediate, hidden], down [experts, hidden, intermediate]. */
export interface ExpertParameters {
  readonly up: Parameter
  readonly upBias?: Parameter
  readonly down: Parameter
  readonly downBias?: Parameter
}

/**
 * out[r] = sum over the row's choices of gate * (down_e activation(up_e x[r])): x [rows, hidden] -> [rows, hidden].
 * Expert outputs are not kept: d gate = <dOut down, A> + <dOut, downBias>, A after the activation (DESIGN section 3).
 */
export function mixture(
  tape: Tape,
  x: Tensor,
  gate: Tensor,
  plan: RoutedLayout,
  { up, upBias, down, downBias }: ExpertParameters,
  activation: Activation,
): Tensor {
  const { device } = tape
  const source = plan.source
  if (layoutOf(x) !== source || layoutOf(gate) !== source) {
    throw new DpMoeError(
      'UNIT_MIXING',
      `mixture: ${describe(x)} and gate ${describe(gate)} must be the rows that were routed`,
    )
  }
  for (const weight of [up, upBias, down, downBias]) {
    if (weight) requireShared('mixture', 'an expert', weight.tensor)
  }
  const experts = plan.experts
  const [, intermediate, hidden] = up.shape as [number, number, number]
  if (up.shape[0] !== experts || x.shape[1] !== hidden || down.shape[2] !== intermediate) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `mixture: expected up [${experts}, intermediate, ${x.shape[1]}] and down [${experts}, out, intermediate], got ` +
        `[${up.shape.join(', ')}] and [${down.shape.join(', ')}]`,
    )
  }
  const out = down.shape[1]!
  const slots = plan.slots
  const groups = { groupOffsets: plan.segmentOffsets, groups: experts, groupStride: source.units, accumulate: false }
  const inSlots = { layout: plan, dtype: x.dtype }
  const a = device.empty([slots, intermediate], inSlots)
  const keepsArgument = activation !== 'none' && activation !== 'relu' && tape.sink !== undefined
  const argument = keepsArgument ? device.empty([slots, intermediate], inSlots) : undefined
  device.run('matrixMultiply', {
    x,
    xRows: plan.rowOfSlot,
    weight: up.as(x.dtype),
    bias: upBias?.tensor,
    y: a,
    preActivation: argument,
    rows: slots,
    k: hidden,
    n: intermediate,
    ...groups,
    transposed: true,
    activation: activationCode(activation),
  })
  const y = device.empty([source.rows, out], { layout: source, dtype: x.dtype })
  const expertOutput = device.empty([slots, out], inSlots)
  device.run('matrixMultiply', {
    x: a,
    weight: down.as(x.dtype),
    bias: downBias?.tensor,
    y: expertOutput,
    rows: slots,
    k: intermediate,
    n: out,
    ...groups,
    transposed: true,
    activation: activationCode('none'),
  })
  device.run('combineRows', {
    x: expertOutput,
    slot: plan.slotOf,
    weight: gate,
    y,
    rows: source.rows,
    d: out,
    perRow: plan.expertsPerToken,
    accumulate: false,
  })
  expertOutput[Symbol.dispose]()

  tape.record([y], [x, gate], [up, upBias, down, downBias], ([dOut]) => {
    const gateOfSlot = gateInSlots(tape, gate, plan)
    const dA = device.empty([slots, intermediate], inSlots)
    device.run('matrixMultiply', {
      x: dOut!,
      xRows: plan.rowOfSlot,
      weight: down.as(x.dtype),
      y: dA,
      rows: slots,
      k: out,
      n: intermediate,
      ...groups,
      transposed: false,
      activation: activationCode('none'),
    })
    if (tape.tracks(gate)) {
      const dGate = device.empty([slots], { layout: plan })
      device.run('rowDot', { a: dA, b: a, countOffsets: plan.segmentOffsets, y: dGate, rows: slots, d: intermediate })
      if (downBias) {
        device.run('matrixMultiply', {
          x: dOut!,
          xRows: plan.rowOfSlot,
          weight: downBias.as(x.dtype),
          y: dGate,
          rows: slots,
          k: out,
          n: 1,
          ...groups,
          accumulate: true,
          transposed: true,
          activation: activationCode('none'),
        })
      }
      tape.addGradient(gate, fromSlots(tape, dGate, plan))
    }
    const segments = plan.segments
    if (tape.trains(down) || tape.trains(downBias)) {
      const dy = toSlots(tape, dOut!, plan, gateOfSlot)
      if (tape.trains(down)) tape.addSite({ kind: 'linear', parameter: down, dy, x: a, segments })
      if (tape.trains(downBias)) tape.addSite({ kind: 'bias', parameter: downBias, dy, segments })
    }
    if (!tape.trains(up) && !tape.trains(upBias) && !tape.tracks(x)) return
    const dUp = activationBackward(device, dA, argument ?? a, activation, plan, gateOfSlot)
    if (tape.trains(up)) tape.addSite({ kind: 'linear', parameter: up, dy: dUp, x, xRows: plan.rowOfSlot, segments })
    if (tape.trains(upBias)) tape.addSite({ kind: 'bias', parameter: upBias, dy: dUp, segments })
    if (!tape.tracks(x)) return
    const dSlots = device.empty([slots, hidden], inSlots)
    device.run('matrixMultiply', {
      x: dUp,
      weight: up.as(x.dtype),
      y: dSlots,
      rows: slots,
      k: intermediate,
      n: hidden,
      ...groups,
      transposed: false,
      activation: activationCode('none'),
    })
    const dx = device.empty(x.shape, { layout: source, dtype: x.dtype })
    device.run('combineRows', {
      x: dSlots,
      slot: plan.slotOf,
      y: dx,
      rows: source.rows,
      d: hidden,
      perRow: plan.expertsPerToken,
      accumulate: false,
    })
    tape.addGradient(x, dx)
  })
  return y
}
