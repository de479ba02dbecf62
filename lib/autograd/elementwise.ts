import type { Tensor } from '../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { describe, layoutOf, requireAligned, requireUnits } from './layout.js'
import type { Tape } from './tape.js'

/** alpha a + beta b for tensors of the same shape and layout. */
export function add(tape: Tape, a: Tensor, b: Tensor, alpha = 1, beta = 1): Tensor {
  requireAligned('add', a, b)
  requireSameShape('add', a, b)
  const y = tape.device.empty(a.shape, { layout: layoutOf(a), dtype: a.dtype })
  tape.device.run('add', { a, b, y, size: y.size, alpha, beta })
  tape.record([y], [a, b], [], ([dy]) => {
    tape.addGradient(a, scaled(tape, dy!, alpha))
    tape.addGradient(b, scaled(tape, dy!, beta))
  })
  return y
}

/** factor * x. */
export function scale(tape: Tape, x: Tensor, factor: number): Tensor {
  const y = scaled(tape, x, factor)
  if (y !== x) tape.record([y], [x], [], ([dy]) => tape.addGradient(x, scaled(tape, dy!, factor)))
  return y
}

/** a * b elementwise for tensors of the same shape and layout. */
export function multiply(tape: Tape, a: Tensor, b: Tensor): Tensor {
  requireAligned('multiply', a, b)
  requireSameShape('multiply', a, b)
  const product = (left: Tensor, right: Tensor) => {
    const y = tape.device.empty(left.shape, { layout: layoutOf(left), dtype: left.dtype })
    tape.device.run('multiply', { a: left, b: right, y, size: y.size })
    return y
  }
  const y = product(a, b)
  tape.record([y], [a, b], [], ([dy]) => {
    if (tape.tracks(a)) tape.addGradient(a, product(dy!, b))
    if (tape.tracks(b)) tape.addGradient(b, product(dy!, a))
  })
  return y
}

/** x, no smaller than low and no larger than high. */
export function clamp(tape: Tape, x: Tensor, low: number, high: number): Tensor {
  if (!(low <= high)) throw new OutOfRangeError('clamp low', `a number <= ${high}`, low)
  const { device } = tape
  const like = { layout: layoutOf(x), dtype: x.dtype }
  const y = device.empty(x.shape, like)
  device.run('clamp', { x, y, size: x.size, low, high })
  tape.record([y], [x], [], ([dy]) => {
    const dx = device.empty(x.shape, like)
    device.run('clampBackward', { dy: dy!, x, dx, size: x.size, low, high })
    tape.addGradient(x, dx)
  })
  return y
}

/** What random ops of one step are keyed by: never the batch, so a unit's draws do not depend on the others. */
export interface StepRandom {
  /** ChaCha20 key, int32 [8]. */
  readonly key: Tensor
  readonly step: number
}

/** Zeroes entries with probability `rate` and scales the others by 1 / (1 - rate). `site` tells layers apart. */
export function dropout(tape: Tape, x: Tensor, rate: number, random: StepRandom, site: number): Tensor {
  if (!(rate >= 0 && rate < 1)) throw new OutOfRangeError('dropout rate', 'a number in [0, 1)', rate)
  if (rate === 0) return x
  return keyed(tape, 'dropout', x, { rate }, random, site)
}

/** Multiplies entries by independent uniforms in [1 - epsilon, 1 + epsilon] (router jitter, arXiv 2101.03961). */
export function jitter(tape: Tape, x: Tensor, epsilon: number, random: StepRandom, site: number): Tensor {
  if (!(epsilon >= 0 && epsilon < 1)) throw new OutOfRangeError('jitter epsilon', 'a number in [0, 1)', epsilon)
  if (epsilon === 0) return x
  return keyed(tape, 'jitter', x, { epsilon }, random, site)
}

function keyed(
  tape: Tape,
  operation: 'dropout' | 'jitter',
  x: Tensor,
  amount: { rate: number } | { epsilon: number },
  random: StepRandom,
  site: number,
): Tensor {
  const layout = requireUnits(operation, x)
  const apply = (input: Tensor) => {
    const y = tape.device.empty(x.shape, { layout, dtype: x.dtype })
    const common = {
      x: input,
      segmentOffsets: layout.offsetsTensor,
      unitIds: layout.unitIds,
      key: random.key,
      y,
      rows: x.shape[0]!,
      d: x.shape[1]!,
      units: layout.units,
      step: random.step,
      site,
    }
    if ('rate' in amount) tape.device.run('dropout', { ...common, rate: amount.rate })
    else tape.device.run('jitter', { ...common, epsilon: amount.epsilon })
    return y
  }
  const y = apply(x)
  tape.record([y], [x], [], ([dy]) => tape.addGradient(x, apply(dy!)))
  return y
}

function scaled(tape: Tape, x: Tensor, factor: number): Tensor {
  if (factor === 1) return x
  const y = tape.device.empty(x.shape, { layout: layoutOf(x), dtype: x.dtype })
  tape.device.run('add', { a: x, y, size: y.size, alpha: factor, beta: 0 })
  return y
}

function requireSameShape(operation: string, a: Tensor, b: Tensor): void {
  if (a.shape.length === b.shape.length && a.shape.every((extent, axis) => extent === b.shape[axis])) return
  throw new DpMoeError('SHAPE_MISMATCH', `${operation}: expected equal shapes, got ${describe(a)} and ${describe(b)}`)
}
