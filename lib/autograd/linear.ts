import type { DType } from '../engine/dtype.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { type Activation, activationBackward, activationCode } from './activation.js'
import { converted } from './cast.js'
import { describe, type Layout, layoutOf, RoutedLayout, requireShared, UnitLayout } from './layout.js'
import type { Parameter } from './parameter.js'
import type { Tape } from './tape.js'

export interface LinearOptions {
  /** Applied to the product in the same pass. Default 'none'. */
  activation?: Activation
  /** Names the op in errors. Default 'linear'. */
  operation?: string
  /** What y is stored as: float32 for scores that a softmax reads. Default the dtype of x. */
  outputType?: DType
}

/**
 * y = activation(x W' + b): x [rows, d], weight [p, d], bias [p] -> [rows, p], the layout of x.
 * On a routed x (or with `routed`, on the rows that were routed) the weight is [experts, p, d], the bias [experts, p],
 * and each slot meets its own expert's.
 */
export function linear(
  tape: Tape,
  x: Tensor,
  weight: Parameter,
  bias?: Parameter,
  options: LinearOptions & { routed?: RoutedLayout } = {},
): Tensor {
  const operation = options.operation ?? 'linear'
  const { device } = tape
  const activation = options.activation ?? 'none'
  const inputLayout = layoutOf(x)
  const layout: Layout | undefined = options.routed ?? inputLayout
  const gathered = options.routed !== undefined && inputLayout === options.routed.source
  if (options.routed && !gathered && inputLayout !== options.routed) {
    throw new DpMoeError(
      'UNIT_MIXING',
      `${operation}: ${describe(x)} is neither in the slots nor in the rows of the given routing plan`,
    )
  }
  requireShared(operation, 'the weight', weight.tensor)
  if (bias) requireShared(operation, 'the bias', bias.tensor)
  const groups = layout instanceof RoutedLayout ? layout.experts : 1
  const [p, d] = matrixShape(operation, x, weight, bias, layout instanceof RoutedLayout ? groups : undefined)
  const rows = layout instanceof RoutedLayout ? layout.slots : x.shape[0]!
  const y = device.empty([rows, p], { layout, dtype: options.outputType ?? x.dtype })
  const needsArgument = activation !== 'none' && activation !== 'relu' && tape.records
  const preActivation = needsArgument ? device.empty([rows, p], { layout, dtype: x.dtype }) : undefined
  const xRows = gathered ? options.routed!.rowOfSlot : undefined
  const groupOffsets = layout instanceof RoutedLayout ? layout.segmentOffsets : undefined
  const groupStride = layout instanceof RoutedLayout ? layout.source.units : 1
  device.run('matrixMultiply', {
    x,
    xRows,
    weight: weight.as(x.dtype),
    bias: bias?.tensor,
    groupOffsets,
    y,
    preActivation,
    rows,
    k: d,
    n: p,
    groups,
    groupStride,
    transposed: true,
    accumulate: false,
    activation: activationCode(activation),
  })
  const backward = (gradient: Tensor) => {
    let dy = converted(device, gradient, x.dtype)
    if (activation !== 'none') {
      const argument = preActivation ?? converted(device, y, x.dtype)
      dy = activationBackward(device, dy, argument, activation, layout)
    }
    if (tape.trains(weight) || tape.trains(bias)) {
      if (!(layout instanceof UnitLayout || layout instanceof RoutedLayout)) {
        throw new DpMoeError(
          'INVALID_ARGUMENT',
          `${operation}: ${describe(x)} belongs to no unit, so nothing can be clipped`,
        )
      }
      if (tape.trains(weight)) {
        tape.addSite({ kind: 'linear', parameter: weight, dy, x, xRows, segments: layout.segments })
      }
      if (tape.trains(bias)) tape.addSite({ kind: 'bias', parameter: bias, dy, segments: layout.segments })
    }
    if (!tape.tracks(x)) return
    const dSlots = device.empty([rows, d], { layout, dtype: x.dtype })
    device.run('matrixMultiply', {
      x: dy,
      weight: weight.as(x.dtype),
      groupOffsets,
      y: dSlots,
      rows,
      k: p,
      n: d,
      groups,
      groupStride,
      transposed: false,
      accumulate: false,
      activation: activationCode('none'),
    })
    if (!gathered) {
      tape.addGradient(x, dSlots)
      return
    }
    const dx = device.empty(x.shape, { layout: inputLayout, dtype: x.dtype })
    device.run('combineRows', {
      x: dSlots,
      slot: options.routed!.slotOf,
      y: dx,
      rows: x.shape[0]!,
      d,
      perRow: options.routed!.expertsPerToken,
      accumulate: false,
    })
    tape.addGradient(x, dx)
  }
  tape.record([y], [x], [weight, bias], ([gradient]) => backward(gradient!), [preActivation])
  return y
}

/** [outputs, inputs] of a weight, or an error with all shapes. */
function matrixShape(
  operation: string,
  x: Tensor,
  weight: Parameter,
  bias: Parameter | undefined,
  experts: number | undefined,
): readonly [number, number] {
  const matrix = experts === undefined ? weight.shape : weight.shape.slice(1)
  const [p, d] = matrix
  const fits =
    x.shape.length === 2 &&
    matrix.length === 2 &&
    x.shape[1] === d &&
    (experts === undefined || weight.shape[0] === experts) &&
    (!bias || bias.size === (experts ?? 1) * p!)
  if (!fits) {
    throw new DpMoeError(
      'SHAPE_MISMATCH',
      `${operation}: expected x [rows, d] and weight ${experts === undefined ? '[p, d]' : `[${experts}, p, d]`}, got ` +
        `${describe(x)}, weight [${weight.shape.join(', ')}]${bias ? `, bias [${bias.shape.join(', ')}]` : ''}`,
    )
  }
  return [p!, d!]
}
