import type { MixturePair } from './mixture-pair.js'
import { optimisticMasses } from './optimistic-masses.js'
import { RULE } from './quadrature.js'

/** How finely one release's losses are put on the lattice. */
export interface LatticeOptions {
  /** Lattice interval h: every loss becomes a whole multiple of it. */
  readonly interval: number
  /** Far from `centre` the cells grow to this fraction of the distance. */
  readonly growth: number
  readonly centre: number
  /** Cells never grow wider than this. */
  readonly widest: number
  /** Some loss that is to be a lattice point; by default the one that fits best. */
  readonly origin?: number
}

/**
 * One release's privacy loss on a lattice, from above and from below.
 *
 * Guarantee: for every eps, hockey-stick(lower) <= hockey-stick(P, Q) <= hockey-stick(upper), up to the rounding of
 * float64 quadrature. Both orders survive composition, because the hockey-stick of a product is a decreasing convex
 * function of each factor's likelihood ratio.
 */
export interface LossLattice {
  /** Losses are origin + index * interval, ascending. */
  readonly origin: number
  readonly interval: number
  readonly indices: Float64Array
  /** Mass under P of each loss: connect-the-dots, so that the mass under Q is kept too. */
  readonly upper: Float64Array
  /** Mass of each loss of the optimistic measure. */
  readonly lower: Float64Array
  /** Mass beyond the lattice, taken as an infinite loss from above and as the last finite one from below. */
  readonly infinite: number
}

/**
 * Discretises the loss of `pair` for x in [low, high].
 *
 * Upper: each loss in a cell [a, b] is split between a and b so that mass and E e^-L are kept: the hockey-stick curve,
 * linear in e^eps between lattice points, then meets the true one at every lattice point ("connect the dots",
 * Doroshenko et al., arXiv 2207.04380). Lower: the curve through the lower of the two adjacent cells' tangents at each
 * lattice point; a chord between such points lies under the tangent of its cell, hence under the convex curve.
 *
 * @returns undefined where it would take too many cells.
 */
export function discretise(
  pair: MixturePair,
  low: number,
  high: number,
  options: LatticeOptions,
): LossLattice | undefined {
  const h = options.interval
  const edgeBin = heaviestEnd(pair, low, high, h)
  const origin = options.origin ?? edgeBin.origin
  const indices = knots(pair.loss(low) - origin, pair.loss(high) - origin, options.centre - origin, options)
  if (!indices) return undefined
  const count = indices.length
  const upper = new Float64Array(count)
  const drops = new Float64Array(count)

  let edge = low
  for (let i = 0; i + 1 < count; i++) {
    const cell = { start: origin + indices[i]! * h, width: (indices[i + 1]! - indices[i]!) * h }
    const end = i + 2 === count ? high : pair.inverse(cell.start + cell.width, edge, high)
    let touch = pair.inverse(cell.start + touchingPoint(cell.width), edge, end)
    if (origin === edgeBin.origin) {
      if (indices[i + 1] === 0) touch = Math.min(end, Math.max(edge, edgeBin.low))
      if (indices[i] === 0) touch = Math.min(end, Math.max(edge, edgeBin.high))
    }
    const first = integrate(pair, edge, touch, cell)
    const second = integrate(pair, touch, end, cell)
    upper[i]! += first.toStart + second.toStart
    upper[i + 1]! += first.toEnd + second.toEnd
    // How far the cell's tangent passes below the curve at either end: toEnd is the mass times expm1(a - L) / expm1(-w),
    // toStart the mass times expm1(b - L) / expm1(w).
    drops[i] = Math.max(drops[i]!, -Math.expm1(-cell.width) * first.toEnd)
    drops[i + 1] = Math.max(0, Math.expm1(cell.width) * second.toStart)
    edge = end
  }
  const infinite = pair.upperTail(high)
  const lower = optimisticMasses(indices, h, upper, drops, infinite)
  upper[0]! += pair.lowerTail(low)
  return { origin, interval: h, indices, upper, lower, infinite }
}

/**
 * Where in a cell the tangent touches, from its start: halfway, but in wide cells, whose e^-L is all at their start, near
 * enough to the end for the tangent to pass as far below the curve there as at the start.
 */
export function touchingPoint(width: number): number {
  return Math.max(0.5 * width, width - Math.LN2)
}

/** The outermost interval of losses, of length h, at the end that holds more mass. */
interface EdgeBin {
  /** The loss that has the bin's mean of e^-L. */
  readonly origin: number
  /** The bin's ends, in x. */
  readonly low: number
  readonly high: number
}

/**
 * Most of the mass of a sampled Gaussian lies against one end of the losses' range. A lattice point at the mean of that
 * end's bin, with tangents at the bin's two ends, keeps the lower curve's error of second order in h; an end that is cut
 * anywhere else costs a first-order error in every release.
 */
function heaviestEnd(pair: MixturePair, low: number, high: number, h: number): EdgeBin {
  const bottom = pair.loss(low)
  const top = pair.loss(high)
  const bins = [
    { low, high: pair.inverse(bottom + h, low, high), start: bottom },
    { low: pair.inverse(top - h, low, high), high, start: top - h },
  ].map((bin) => ({ ...bin, ...integrate(pair, bin.low, bin.high, { start: bin.start, width: h }) }))
  const [first, last] = [bins[0]!, bins[1]!]
  const bin = first.toStart + first.toEnd >= last.toStart + last.toEnd ? first : last
  const mass = bin.toStart + bin.toEnd
  // The mean of e^(start - L) over the bin, less one, is expm1(-h) times the share that goes to the bin's end.
  const origin = mass > 0 ? bin.start - Math.log1p((Math.expm1(-h) * bin.toEnd) / mass) : bin.start
  return { origin, low: bin.low, high: bin.high }
}

/** The most cells that one release's losses are put into. */
const MOST_CELLS = 2 ** 18

/**
 * Lattice indices of the cells' ends; losses are relative to the origin, whose own cells are one interval wide. Undefined
 * where they would be too many.
 */
function knots(lowest: number, highest: number, centre: number, options: LatticeOptions): Float64Array | undefined {
  const { interval, growth, widest } = options
  const result: number[] = []
  let index = Math.floor(lowest / interval) - 1
  result.push(index)
  while (index * interval < highest || result.length < 2) {
    if (result.length > MOST_CELLS) return undefined
    const width = Math.min(growth * Math.abs(index * interval - centre), widest)
    const next = index + Math.max(1, Math.floor(width / interval))
    index = index >= -2 && index < 2 ? index + 1 : index < -2 ? Math.min(next, -2) : next
    result.push(index)
  }
  return Float64Array.from(result)
}

interface Cell {
  readonly start: number
  readonly width: number
}

/** Splits the mass of x in [low, high] between the two ends of the cell that its losses lie in. */
function integrate(pair: MixturePair, low: number, high: number, cell: Cell): { toStart: number; toEnd: number } {
  let toStart = 0
  let toEnd = 0
  const panels = Math.max(1, Math.ceil((high - low) / (0.5 * pair.scale)))
  const half = (high - low) / panels / 2
  if (half <= 0) return { toStart, toEnd }
  const startScale = 1 / Math.expm1(cell.width)
  const endScale = 1 / Math.expm1(-cell.width)
  for (let panel = 0; panel < panels; panel++) {
    const middle = low + (2 * panel + 1) * half
    for (let k = 0; k < RULE.nodes.length; k++) {
      const x = middle + half * RULE.nodes[k]!
      const mass = RULE.weights[k]! * half * pair.density(x)
      const offset = pair.loss(x) - cell.start
      toStart += mass * Math.expm1(cell.width - offset) * startScale
      toEnd += mass * Math.expm1(-offset) * endScale
    }
  }
  return { toStart, toEnd }
}
