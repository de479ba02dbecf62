import { type LossLattice, touchingPoint } from './loss-lattice.js'
import { optimisticMasses } from './optimistic-masses.js'
import type { Composed, Dense } from './self-convolution.js'

/**
 * Puts a composed loss on a lattice `factor` times as coarse: connect-the-dots from above, tangents from below, as
 * `discretise` does for one release. The masses are relative: both measures times the same constant, returned as
 * `logScale`.
 */
export function regrid(composed: Composed, factor: number): { lattice: LossLattice; logScale: number } {
  const { upper, lower, theta, interval } = composed
  // The heaviest loss stays a lattice point: where most of a block's mass is one atom, that keeps it exact.
  const heaviest = upper.first + argmax(upper.tilted)
  const origin = composed.origin + heaviest * interval
  const lossAt = (j: number) => j * interval
  const logScale = upper.logScale - theta * origin
  const untilt = (dense: Dense): Float64Array => {
    const scale = dense.logScale - upper.logScale
    return dense.tilted.map((mass, j) => mass && mass * Math.exp(scale - theta * lossAt(dense.first - heaviest + j)))
  }
  const first = Math.floor(Math.min(upper.first - heaviest, lower.first - heaviest) / factor) - 1
  const end = Math.max(upper.first + upper.tilted.length, lower.first + lower.tilted.length) - heaviest
  const last = Math.floor((end - 1) / factor) + 1
  const indices = Float64Array.from({ length: last - first + 1 }, (_, i) => first + i)
  const shared = { indices, interval: interval * factor, factor, fine: interval, first }
  const dots = connect(untilt(upper), upper.first - heaviest, shared)
  const below = connect(untilt(lower), lower.first - heaviest, shared)
  const lowerMasses = optimisticMasses(indices, shared.interval, below.masses, below.drops, 0)
  return {
    lattice: { origin, interval: shared.interval, indices, upper: dots.masses, lower: lowerMasses, infinite: 0 },
    logScale,
  }
}

interface Grid {
  readonly indices: Float64Array
  readonly interval: number
  readonly factor: number
  readonly fine: number
  readonly first: number
}

/** Connect-the-dots masses on the coarse lattice, and how far the cells' tangents pass below the curve at each point. */
function connect(masses: Float64Array, start: number, grid: Grid): { masses: Float64Array; drops: Float64Array } {
  const { interval, factor, fine, first } = grid
  const result = new Float64Array(grid.indices.length)
  const fromLeft = new Float64Array(grid.indices.length)
  const fromRight = new Float64Array(grid.indices.length)
  // For each place in a cell: shares of its two ends, and distances from them, 1 - e^(a - L) and e^(b - L) - 1.
  const toEnd = Float64Array.from({ length: factor }, (_, k) => Math.expm1(-k * fine) / Math.expm1(-interval))
  const above = Float64Array.from({ length: factor }, (_, k) => -Math.expm1(-k * fine))
  const below = Float64Array.from({ length: factor }, (_, k) => Math.expm1(interval - k * fine))
  const touch = touchingPoint(interval)
  const toStart = below.map((distance) => distance / Math.expm1(interval))
  for (let j = 0; j < masses.length; j++) {
    const mass = masses[j]!
    if (mass === 0) continue
    const cell = Math.floor((start + j) / factor)
    const k = start + j - cell * factor
    const i = cell - first
    result[i]! += mass * toStart[k]!
    result[i + 1]! += mass * toEnd[k]!
    if (k * fine <= touch) fromRight[i]! += mass * above[k]!
    else fromLeft[i + 1]! += mass * below[k]!
  }
  return { masses: result, drops: fromLeft.map((left, i) => Math.max(left, fromRight[i]!)) }
}

function argmax(values: Float64Array): number {
  let best = 0
  for (let i = 1; i < values.length; i++) if (values[i]! > values[best]!) best = i
  return best
}
