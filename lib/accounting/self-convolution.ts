import FFT from 'fft.js'
import type { LossLattice } from './loss-lattice.js'

/** One release's loss and how many times it happened. */
export interface CountedLattice {
  readonly lattice: LossLattice
  readonly count: number
}

/** Where and how a composition is computed. */
export interface Window {
  /** Tilt: everything is computed under the measure weighted by e^(theta L), where float64 rounding does no harm. */
  readonly theta: number
  /** The window's first loss is origin + first * interval. */
  readonly origin: number
  readonly interval: number
  readonly first: number
  /** Number of lattice points, a power of two. */
  readonly size: number
}

/** A composed, tilted measure on a window: the mass at loss l is tilted e^(logScale - theta l). */
export interface TiltedMasses {
  readonly tilted: Float64Array
  readonly logScale: number
  /** Bound on the rounding error of each entry of `tilted`. */
  readonly rounding: number
}

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
 * measures travelling as the real and the imaginary part of one sequence.
 *
 * The convolution is cyclic: mass outside the window appears inside it, so the caller bounds that mass.
 */
export function compose(
  segments: readonly CountedLattice[],
  window: Window,
): { upper: TiltedMasses; lower: TiltedMasses } {
  const { theta, size } = window
  const transform = transformOf(size)
  const half = size / 2
  const logModulus = [new Float64Array(half + 1), new Float64Array(half + 1)] as const
  const phase = [new Float64Array(half + 1), new Float64Array(half + 1)] as const
  const input = new Float64Array(2 * size)
  const spectrum = new Float64Array(2 * size)
  const logScale = [0, 0]
  let releases = 0
  for (const { lattice, count } of segments) {
    input.fill(0)
    releases += count
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
  let modulusSum = 0
  for (let k = 0; k <= half; k++) {
    const upper = Math.exp(logModulus[0][k]!)
    const lower = Math.exp(logModulus[1][k]!)
    modulusSum += 2 * Math.max(upper, lower)
    const [ur, ui] = upper < 1e-40 ? [0, 0] : [upper * Math.cos(phase[0][k]!), upper * Math.sin(phase[0][k]!)]
    const [lr, li] = lower < 1e-40 ? [0, 0] : [lower * Math.cos(phase[1][k]!), lower * Math.sin(phase[1][k]!)]
    input[2 * k] = ur - li
    input[2 * k + 1] = ui + lr
    if (k > 0 && k < half) {
      input[2 * (size - k)] = ur + li
      input[2 * (size - k) + 1] = lr - ui
    }
  }
  transform.inverseTransform(spectrum, input)
  const upper = new Float64Array(size)
  const lower = new Float64Array(size)
  for (let j = 0; j < size; j++) {
    const at = modulo(window.first + j, size)
    upper[j] = spectrum[2 * at]!
    lower[j] = spectrum[2 * at + 1]!
  }
  // Each factor of the spectrum is off by a few units of rounding, hence its power by `releases` times as much.
  const rounding = (4 * Math.log2(size) + 8 * releases) * 1.2e-16 * (modulusSum / size)
  return {
    upper: { tilted: upper, logScale: logScale[0]!, rounding },
    lower: { tilted: lower, logScale: logScale[1]!, rounding },
  }
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
  if (logModulus[k]! > -100) phase[k]! += count * Math.atan2(im, re)
}

function modulo(value: number, size: number): number {
  const rest = value % size
  return rest < 0 ? rest + size : rest
}
