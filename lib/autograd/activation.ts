import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { type Layout, layoutOf, RoutedLayout, requireAligned } from './layout.js'
import type { Tape } from './tape.js'

const codes = { none: 0, relu: 1, gelu: 2, geluTanh: 3, silu: 4, tanh: 5 } as const

/** Elementwise non-linearities; `gelu` is exact (erf), `geluTanh` its usual approximation. */
export type Activation = keyof typeof codes

/** The number the native ops know an activation by. */
export function activationCode(activation: Activation): number {
  return codes[activation]
}

/** Gradient through an activation whose argument was `x`; for relu its result serves as well. */
export function activationBackward(
  device: Device,
  dy: Tensor,
  x: Tensor,
  activation: Activation,
  layout: Layout | undefined,
  rowScale?: Tensor,
): Tensor {
  const dx = device.empty(x.shape, { layout, dtype: x.dtype })
  device.run('activationBackward', {
    dy,
    x,
    rowScale,
    countOffsets: usedSlots(layout),
    dx,
    rows: x.shape[0]!,
    d: x.size / Math.max(1, x.shape[0]!),
    activation: codes[activation],
  })
  return dx
}

/** y = activation(x), elementwise. */
export function activate(tape: Tape, x: Tensor, activation: Activation): Tensor {
  const y = tape.device.empty(x.shape, { layout: layoutOf(x), dtype: x.dtype })
  tape.device.run('activation', { x, y, size: x.size, activation: codes[activation] })
  tape.record([y], [x], [], ([dy]) => {
    tape.addGradient(x, activationBackward(tape.device, dy!, x, activation, layoutOf(x)))
  })
  return y
}

/** y = activation(gate) * up, elementwise (SwiGLU with silu). */
export function gatedActivate(tape: Tape, gate: Tensor, up: Tensor, activation: Activation): Tensor {
  requireAligned('gatedActivate', gate, up)
  const { device } = tape
  const layout = layoutOf(gate)
  const rows = gate.shape[0]!
  const d = gate.shape[1]!
  const like = { layout, dtype: gate.dtype }
  const y = device.empty(gate.shape, like)
  const common = { gate, up, countOffsets: usedSlots(layout), rows, d, activation: codes[activation] }
  device.run('gatedActivation', { ...common, y })
  tape.record([y], [gate, up], [], ([dy]) => {
    const dGate = device.empty(gate.shape, like)
    const dUp = device.empty(gate.shape, like)
    device.run('gatedActivationBackward', { ...common, dy: dy!, dGate, dUp })
    tape.addGradient(gate, dGate)
    tape.addGradient(up, dUp)
  })
  return y
}

/** Offsets whose last entry is the number of slots in use, for tensors in slot order. */
export function usedSlots(layout: Layout | undefined): Tensor | undefined {
  return layout instanceof RoutedLayout ? layout.segmentOffsets : undefined
}
