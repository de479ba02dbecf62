/**
 * Masses on the knots whose hockey-stick curve passes at least `drops` below the true one at each knot and is convex,
 * decreasing and never negative.
 *
 * `dots` are the connect-the-dots masses, whose curve meets the true one at the knots; the curve's second differences
 * are the masses, so the drops enter through theirs and nothing cancels. `infinite` is mass beyond the last knot.
 */
export function optimisticMasses(
  indices: Float64Array,
  interval: number,
  dots: Float64Array,
  drops: Float64Array,
  infinite: number,
): Float64Array {
  const last = indices.length - 1
  const masses = Float64Array.from(dots)
  masses[last]! += infinite
  for (let i = 0; i < last; i++) {
    const width = (indices[i + 1]! - indices[i]!) * interval
    const change = drops[i + 1]! - drops[i]!
    masses[i]! -= change / Math.expm1(width)
    masses[i + 1]! -= change / Math.expm1(-width)
  }
  const used = endAtZero(indices, interval, masses, -drops[last]!)
  makeConvex(indices.subarray(0, used), interval, masses)
  return masses
}

/**
 * Ends the curve at the first knot where it is not positive: a curve that never is negative and passes below it is zero
 * from there on. `value` (<= 0) is what it has at the last knot. Returns the number of knots up to the end.
 */
function endAtZero(indices: Float64Array, interval: number, masses: Float64Array, value: number): number {
  const last = masses.length - 1
  let height = value
  let slope = masses[last]! // the curve's slope just before a knot, in units of e^-eps
  let end = { knot: last, height: 0, slope: 0, width: 0 } // what the knot before the end has
  for (let k = last - 1; k >= 0; k--) {
    const atZero = height <= 0
    const width = (indices[k + 1]! - indices[k]!) * interval
    height -= Math.expm1(-width) * slope
    slope = masses[k]! + Math.exp(-width) * slope
    if (atZero) end = { knot: k + 1, height, slope, width }
  }
  masses.fill(0, end.knot)
  if (height <= 0) {
    masses[0] = 0
    return 1
  }
  masses[end.knot] = end.height / -Math.expm1(-end.width)
  masses[end.knot - 1] = end.slope - Math.exp(-end.width) * masses[end.knot]!
  return end.knot + 1
}

/**
 * Lowers the curve to its convex minorant: a negative mass is a knot above the chord of its neighbours, and goes to
 * them so that mass and mass times e^-L are kept.
 */
function makeConvex(indices: Float64Array, interval: number, masses: Float64Array): void {
  const count = indices.length
  const left = Int32Array.from(indices, (_, i) => i - 1)
  const right = Int32Array.from(indices, (_, i) => i + 1)
  const pending: number[] = []
  for (let i = 0; i < count; i++) if (masses[i]! < 0) pending.push(i)
  while (pending.length > 0) {
    const i = pending.pop()!
    const mass = masses[i]!
    if (mass >= 0) continue
    const [l, r] = [left[i]!, right[i]!]
    masses[i] = 0
    if (r === count) throw new RangeError('The optimistic curve does not end at zero') // endAtZero sees to it
    left[r] = l
    if (l < 0) {
      // Nothing to the left: a negative mass at a larger loss lowers the curve further.
      masses[r]! += mass
    } else {
      right[l] = r
      const span = Math.expm1(-(indices[r]! - indices[l]!) * interval)
      const toRight = Math.expm1(-(indices[i]! - indices[l]!) * interval) / span
      masses[r]! += mass * toRight
      masses[l]! += mass * (1 - toRight)
      if (masses[l]! < 0) pending.push(l)
    }
    if (masses[r]! < 0) pending.push(r)
  }
}
