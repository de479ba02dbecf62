import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { type Activation, activationBackward, activationCode } from './activation.js'
import { describe, layoutOf, type RoutedLayout, requireShared } from './layout.js'
import type { Parameter } from './parameter.js'
import { fromSlots, gateInSlots, toSlots } from './routing.js'
import type { Tape } from './tape.js'

/**
 * Weights of a group of experts: up [experts, intermediate, hidden], down [experts, hidden, intermediate], and for gated
 * ones (SwiGLU with silu) gate as up.
 */
export interface ExpertParameters {
  readonly gate?: Parameter | undefined
  readonly up: Parameter
  readonly upBias?: Parameter
  readonly down: Parameter
  readonly downBias?: Parameter
}

/**
 * out[r] = sum over the row's choices of gate * (down_e a), a = activation(up_e x[r]) or activation(gate_e x[r]) * up_e x[r]:
 * x [rows, hidden] -> [rows, hidden].
 * Expert outputs are not kept: d gate = <dOut down, A> + <dOut, downBias>, A after the activation (DESIGN section 3).
 */
export function mixture(
  tape: Tape,
  x: Tensor,
  gate: Tensor,
  plan: RoutedLayout,
  { gate: gateProjection, up, upBias, down, downBias }: ExpertParameters,
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
  for (const weight of [gateProjection, up, upBias, down, downBias]) {
    if (weight) requireShared('mixture', 'an expert', weight.tensor)
  }
  const experts = plan.experts
  const [, intermediate, hidden] = up.shape as [number, number, number]
  const gateFits = gateProjection === undefined || `${gateProjection.shape}` === `${up.shape}`
  if (!gateFits || up.shape[0] !== experts || x.shape[1] !== hidden || down.shape[2] !== intermediate) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `mixture: expected up (and gate) [${experts}, intermediate, ${x.shape[1]}] and down [${experts}, out, intermediate], got ` +
        `[${up.shape.join(', ')}] and [${down.shape.join(', ')}]`,
    )
  }
  const out = down.shape[1]!
  const slots = plan.slots
  const groups = { groupOffsets: plan.segmentOffsets, groups: experts, groupStride: source.units, accumulate: false }
  const inSlots = { layout: plan, dtype: x.dtype }
  const wide = () => device.empty([slots, intermediate], inSlots)
  /** y = activation(W_e x + bias_e) of every slot. */
  const project = (weight: Parameter, bias: Parameter | undefined, y: Tensor, then: Activation, argument?: Tensor) => {
    device.run('matrixMultiply', {
      x,
      xRows: plan.rowOfSlot,
      weight: weight.as(x.dtype),
      bias: bias?.tensor,
      y,
      preActivation: argument,
      rows: slots,
      k: hidden,
      n: intermediate,
      ...groups,
      transposed: true,
      activation: activationCode(then),
    })
    return y
  }
  const a = wide()
  const gated = gateProjection && {
    gate: project(gateProjection, undefined, wide(), 'none'),
    up: project(up, upBias, wide(), 'none'),
    countOffsets: plan.segmentOffsets,
    rows: slots,
    d: intermediate,
    activation: activationCode(activation),
  }
  const keepsArgument = !gated && activation !== 'none' && activation !== 'relu' && tape.records
  const argument = keepsArgument ? wide() : undefined
  if (gated) device.run('gatedActivation', { ...gated, y: a })
  else project(up, upBias, a, activation, argument)
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

  const backward = (dOut: Tensor) => {
    const gateOfSlot = gateInSlots(tape, gate, plan)
    const dA = wide()
    device.run('matrixMultiply', {
      x: dOut,
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
          x: dOut,
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
      const dy = toSlots(tape, dOut, plan, gateOfSlot)
      if (tape.trains(down)) tape.addSite({ kind: 'linear', parameter: down, dy, x: a, segments })
      if (tape.trains(downBias)) tape.addSite({ kind: 'bias', parameter: downBias, dy, segments })
    }
    if (!tape.trains(gateProjection) && !tape.trains(up) && !tape.trains(upBias) && !tape.tracks(x)) return
    let dUp: Tensor
    let dGateProjection: Tensor | undefined
    if (gated) {
      dUp = wide()
      dGateProjection = wide()
      device.run('gatedActivationBackward', { ...gated, dy: dA, rowScale: gateOfSlot, dGate: dGateProjection, dUp })
      if (tape.trains(gateProjection)) {
        const site = { parameter: gateProjection, dy: dGateProjection, x, xRows: plan.rowOfSlot, segments }
        tape.addSite({ kind: 'linear', ...site })
      }
    } else {
      dUp = activationBackward(device, dA, argument ?? a, activation, plan, gateOfSlot)
    }
    if (tape.trains(up)) tape.addSite({ kind: 'linear', parameter: up, dy: dUp, x, xRows: plan.rowOfSlot, segments })
    if (tape.trains(upBias)) tape.addSite({ kind: 'bias', parameter: upBias, dy: dUp, segments })
    if (!tape.tracks(x)) return
    const dSlots = device.empty([slots, hidden], inSlots)
    const projectBack = (dy: Tensor, weight: Parameter, accumulate: boolean) => {
      device.run('matrixMultiply', {
        x: dy,
        weight: weight.as(x.dtype),
        y: dSlots,
        rows: slots,
        k: intermediate,
        n: hidden,
        ...groups,
        accumulate,
        transposed: false,
        activation: activationCode('none'),
      })
    }
    projectBack(dUp, up, false)
    if (dGateProjection) projectBack(dGateProjection, gateProjection!, true)
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
  }
  const parameters = [gateProjection, up, upBias, down, downBias]
  tape.record([y], [x, gate], parameters, ([dOut]) => backward(dOut!), [a, argument, gated?.gate, gated?.up])
  return y
}
