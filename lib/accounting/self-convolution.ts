import FFT from 'fft.js'
import { cumulants, logMomentOf } from './log-moment.js'
import type { LossLattice } from './loss-lattice.js'

/** A loss on a lattice, and how often it is drawn. */
export interface CountedLattice {
  readonly lattice: LossLattice
  readonly count: number
}

/** One composed, tilted measure on a window: the mass at loss l = origin + (first + j) interval is tilted[j] e^(logScale - theta l). */
export interface Dense {
  readonly first: number
  readonly tilted: Float64Array
  readonly logScale: number
}

/** The composition of counted lattices, from above and from below. */
export interface Composed {
  readonly theta: number
  readonly origin: number
  readonly interval: number
  readonly upper: Dense
  readonly lower: Dense
  /** Bound on the total variation by which either tilted measure is off: what wrapped around, and rounding. */
  readonly error: number
}

/** The largest lattice, in points. */
const LARGEST_WINDOW = 2 ** 21

const transforms = new Map<number, FFT>()

function transformOf(size: number): FFT {
  let transform = transforms.get(size)
  if (!transform) {
    if (transforms.size > 6) transforms.clear()
    transform = new FFT(size)
    transforms.set(size, transform)
  }
  return transform
}

/**
 * Composes the upper and the lower measures of all segments: a product of powers of their Fourier transforms, the two
 * measures travelling as the real and the imaginary part of one sequence. All lattices have the same interval.
 *
 * Everything is computed under the measure weighted by e^(theta L), where float64 rounding does no harm to a tail. The
 * convolution is cyclic: what lies outside the window appears inside it; Chernoff's bound keeps that below `outside`.
 *
 * @returns undefined where the window would need more than 2^21 points.
 */
export function compose(segments: readonly CountedLattice[], theta: number, outside: number): Composed | undefined {
  const { interval } = segments[0]!.lattice
  const origin = segments.reduce((sum, { lattice, count }) => sum + count * lattice.origin, 0)
  const windows = ([0, 1] as const).map((which) => {
    const { low, high } = chernoffWindow(segments, which, theta, outside)
    const first = Math.floor((low - origin) / interval)
    return { first, points: Math.ceil((high - origin) / interval) - first + 1 }
  })
  const size = Math.max(16, 2 ** Math.ceil(Math.log2(Math.max(windows[0]!.points, windows[1]!.points))))
  if (!(size <= LARGEST_WINDOW)) return undefined
  const transform = transformOf(size)
  const half = size / 2
  const logModulus = [new Float64Array(half + 1), new Float64Array(half + 1)] as const
  const phase = [new Float64Array(half + 1), new Float64Array(half + 1)] as const
  const input = new Float64Array(2 * size)
  const spectrum = new Float64Array(2 * size)
  const logScale = [0, 0]
  let draws = 0
  for (const { lattice, count } of segments) {
    input.fill(0)
    draws += count
    logScale[0]! += count * tilt(lattice, lattice.upper, theta, input, 0)
    logScale[1]! += count * tilt(lattice, lattice.lower, theta, input, 1)
    transform.transform(spectrum, input)
    for (let k = 0; k <= half; k++) {
      const j = k === 0 ? 0 : size - k
      const [a, b, c, d] = [spectrum[2 * k]!, spectrum[2 * k + 1]!, spectrum[2 * j]!, spectrum[2 * j + 1]!]
      // Spectra of the two real sequences, from that of upper + i lower.
      addPower(logModulus[0], phase[0], k, 0.5 * (a + c), 0.5 * (b - d), count)
      addPower(logModulus[1], phase[1], k, 0.5 * (b + d), 0.5 * (c - a), count)
    }
  }
  let squares = 0
  for (let k = 0; k <= half; k++) {
    const upper = logModulus[0][k]! > NEGLIGIBLE ? Math.exp(logModulus[0][k]!) : 0
    const lower = logModulus[1][k]! > NEGLIGIBLE ? Math.exp(logModulus[1][k]!) : 0
    squares += 2 * Math.max(upper, lower) ** 2
    const ur = upper && upper * Math.cos(phase[0][k]!)
    const ui = upper && upper * Math.sin(phase[0][k]!)
    const lr = lower && lower * Math.cos(phase[1][k]!)
    const li = lower && lower * Math.sin(phase[1][k]!)
    input[2 * k] = ur - li
    input[2 * k + 1] = ui + lr
    if (k > 0 && k < half) {
      input[2 * (size - k)] = ur + li
      input[2 * (size - k) + 1] = lr - ui
    }
  }
  transform.inverseTransform(spectrum, input)
  const [upper, lower] = ([0, 1] as const).map((which) => {
    const { first } = windows[which]!
    const tilted = new Float64Array(size)
    for (let j = 0; j < size; j++) tilted[j] = Math.max(0, spectrum[2 * modulo(first + j, size) + which]!)
    return trim({ first, tilted, logScale: logScale[which]! }, 0.5 * outside)
  })
  // Each factor of the spectrum is off by a few units of rounding, hence its power by `draws` times as much. Total
  // variation is at most sqrt(size) times the entries' Euclidean norm, which is that of the spectrum over sqrt(size).
  const rounding = (4 * Math.log2(size) + 4 * draws) * 1.2e-16 * Math.sqrt(squares)
  return { theta, origin, interval, upper: upper!, lower: lower!, error: 3 * outside + rounding }
}

/** Spectrum values below e^NEGLIGIBLE count as zero: far below the rounding of the others. */
const NEGLIGIBLE = -80

/** Losses between which all but `outside` of a tilted, composed measure lies, by Chernoff's bound. */
function chernoffWindow(
  segments: readonly CountedLattice[],
  which: 0 | 1,
  theta: number,
  outside: number,
): { low: number; high: number } {
  const measures = segments.map(({ lattice, count }) => {
    const losses = lattice.indices.map((index) => lattice.origin + index * lattice.interval)
    return { losses, count, masses: which === 0 ? lattice.upper : lattice.lower }
  })
  let [base, variance, lowest, highest] = [0, 0, 0, 0]
  for (const { losses, masses, count } of measures) {
    const tilted = cumulants(losses, masses, theta)
    base += count * tilted.value
    variance += count * tilted.variance
    lowest += count * losses[0]!
    highest += count * losses[losses.length - 1]!
  }
  if (base === Number.NEGATIVE_INFINITY) return { low: 0, high: 0 }
  const shifted = (order: number) =>
    measures.reduce((sum, { losses, masses, count }) => sum + count * logMomentOf(losses, masses, order), -base)
  const least = -Math.log(outside)
  const lambda = Math.sqrt((2 * least) / variance)
  const high = minimum((scale) => (shifted(theta + scale * lambda) + least) / (scale * lambda))
  const low = -minimum((scale) => (shifted(theta - scale * lambda) + least) / (scale * lambda))
  return { low: Math.max(low, lowest), high: Math.min(high, highest) }
}

/** The least value found of a function with one minimum, somewhere below 1 and above 1e-4. */
function minimum(value: (scale: number) => number): number {
  let scale = 0.7
  let best = value(scale)
  for (let factor = 4; factor > 1.15; factor = Math.sqrt(factor)) {
    for (let steps = 0; steps < 6; steps++) {
      const next = value(scale / factor)
      if (!(next < best) && best < Number.POSITIVE_INFINITY) break
      scale /= factor
      best = next
    }
  }
  return best
}

/** Cuts entries off both ends, `allowed` in sum at each. */
function trim(dense: Dense, allowed: number): Dense {
  const { tilted } = dense
  let [start, end] = [0, tilted.length]
  for (let sum = tilted[0]!; sum < allowed && start < end - 1; sum += tilted[start]!) start++
  for (let sum = tilted[end - 1]!; sum < allowed && start < end - 1; sum += tilted[end - 1]!) end--
  return { ...dense, first: dense.first + start, tilted: tilted.subarray(start, end) }
}

/** Adds the normalised tilted masses to one part of a complex sequence; returns the log of what they summed to. */
function tilt(lattice: LossLattice, masses: Float64Array, theta: number, out: Float64Array, part: 0 | 1): number {
  const size = out.length / 2
  const { origin, interval, indices } = lattice
  let largest = Number.NEGATIVE_INFINITY
  for (let i = 0; i < masses.length; i++) {
    if (masses[i]! > 0) largest = Math.max(largest, theta * (origin + interval * indices[i]!) + Math.log(masses[i]!))
  }
  if (largest === Number.NEGATIVE_INFINITY) return largest
  let total = 0
  for (let i = 0; i < masses.length; i++) {
    if (masses[i]! > 0) total += Math.exp(theta * (origin + interval * indices[i]!) + Math.log(masses[i]!) - largest)
  }
  const logTotal = largest + Math.log(total)
  for (let i = 0; i < masses.length; i++) {
    if (masses[i]! <= 0) continue
    out[2 * modulo(indices[i]!, size) + part]! += Math.exp(
      theta * (origin + interval * indices[i]!) + Math.log(masses[i]!) - logTotal,
    )
  }
  return logTotal
}

function addPower(
  logModulus: Float64Array,
  phase: Float64Array,
  k: number,
  re: number,
  im: number,
  count: number,
): void {
  logModulus[k]! += 0.5 * count * Math.log(re * re + im * im)
  if (logModulus[k]! > NEGLIGIBLE) phase[k]! += count * Math.atan2(im, re)
}

function modulo(value: number, size: number): number {
  const rest = value % size
  return rest < 0 ? rest + size : rest
}
