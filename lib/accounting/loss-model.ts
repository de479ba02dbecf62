import { type Cumulants, cumulants, type LossAtoms, lossAtoms } from './log-moment.js'
import { discretise, type LatticeOptions, type LossLattice } from './loss-lattice.js'
import type { MixturePair } from './mixture-pair.js'
import { logMoment } from './renyi.js'

/** The privacy loss of one release, in one direction. */
export interface LossModel {
  /** Probability of an infinite loss, by nature. */
  readonly infinite: number
  /** The same loss with `tail` mass cut off at either end. */
  truncate(tail: number): TruncatedModel
  /** log E_Q (p / q)^alpha for alpha > 1; infinite where it is, or where it cannot be computed. */
  logMoment(alpha: number): number
}

/** A loss with finite ends, ready for a lattice. */
export interface TruncatedModel {
  readonly lowest: number
  readonly highest: number
  cumulants(theta: number): Cumulants
  /**
   * The loss on a lattice; its cells grow to `growth` times the distance from the mean under the tilt theta. Undefined where
   * it would take too many cells.
   */
  lattice(theta: number, interval: number, growth: number): LossLattice | undefined
}

/** The loss of a pair of Gaussian mixtures. */
export class GaussianLoss implements LossModel {
  readonly infinite = 0
  readonly pair: MixturePair

  constructor(pair: MixturePair) {
    this.pair = pair
  }

  truncate(tail: number): TruncatedModel {
    return new TruncatedMixture([{ weight: 1, pair: this.pair }], tail)
  }

  logMoment(alpha: number): number {
    return logMoment(this.pair, alpha)
  }
}

/** A mechanism that is, in public, one of several: its hockey-stick curve is the weighted mean of theirs. */
export interface WeightedPair {
  readonly weight: number
  readonly pair: MixturePair
}

export class BranchedLoss implements LossModel {
  readonly infinite = 0
  readonly #branches: readonly WeightedPair[]

  constructor(branches: readonly WeightedPair[]) {
    this.#branches = branches.filter(({ weight }) => weight > 0)
  }

  truncate(tail: number): TruncatedModel {
    return new TruncatedMixture(this.#branches, tail)
  }

  logMoment(alpha: number): number {
    const terms = this.#branches.map(({ weight, pair }) => Math.log(weight) + logMoment(pair, alpha))
    const largest = Math.max(...terms)
    if (!Number.isFinite(largest)) return largest
    return largest + Math.log(terms.reduce((sum, term) => sum + Math.exp(term - largest), 0))
  }
}

class TruncatedMixture implements TruncatedModel {
  readonly lowest: number
  readonly highest: number
  readonly #branches: readonly (WeightedPair & { low: number; high: number })[]
  readonly #atoms: LossAtoms

  constructor(branches: readonly WeightedPair[], tail: number) {
    this.#branches = branches.map(({ weight, pair }) => {
      return { weight, pair, low: pair.lowerQuantile(tail), high: pair.upperQuantile(tail) }
    })
    this.lowest = Math.min(...this.#branches.map(({ pair, low }) => pair.loss(low)))
    this.highest = Math.max(...this.#branches.map(({ pair, high }) => pair.loss(high)))
    const parts = this.#branches.map(({ weight, pair, low, high }) => {
      const { losses, masses } = lossAtoms(pair, low, high)
      return { losses, masses: masses.map((mass) => mass * weight) }
    })
    this.#atoms = parts.length === 1 ? parts[0]! : concatenate(parts)
  }

  cumulants(theta: number): Cumulants {
    return cumulants(this.#atoms.losses, this.#atoms.masses, theta)
  }

  lattice(theta: number, interval: number, growth: number): LossLattice | undefined {
    const centre = this.cumulants(theta).mean
    const widest = Math.max(interval, Math.min(1, (4 * growth) / theta))
    const options: LatticeOptions = { interval, growth, centre, widest }
    const heaviest = this.#branches.reduce((best, branch) => (branch.weight > best.weight ? branch : best))
    const main = discretise(heaviest.pair, heaviest.low, heaviest.high, options)
    if (!main || this.#branches.length === 1) return main
    const parts: { weight: number; lattice: LossLattice }[] = []
    for (const { weight, pair, low, high } of this.#branches) {
      const lattice = pair === heaviest.pair ? main : discretise(pair, low, high, { ...options, origin: main.origin })
      if (!lattice) return undefined
      parts.push({ weight, lattice })
    }
    return mixLattices(parts)
  }
}

function concatenate(parts: readonly LossAtoms[]): LossAtoms {
  const join = (arrays: readonly Float64Array[]) => Float64Array.from(arrays.flatMap((array) => [...array]))
  return { losses: join(parts.map(({ losses }) => losses)), masses: join(parts.map(({ masses }) => masses)) }
}

/** The weighted sum of lattices with one origin and interval. */
export function mixLattices(parts: readonly { weight: number; lattice: LossLattice }[]): LossLattice {
  const merged = new Map<number, { upper: number; lower: number }>()
  let infinite = 0
  for (const { weight, lattice } of parts) {
    infinite += weight * lattice.infinite
    lattice.indices.forEach((index, i) => {
      const entry = merged.get(index) ?? { upper: 0, lower: 0 }
      entry.upper += weight * lattice.upper[i]!
      entry.lower += weight * lattice.lower[i]!
      merged.set(index, entry)
    })
  }
  const indices = Float64Array.from(merged.keys()).sort()
  const { origin, interval } = parts[0]!.lattice
  return {
    origin,
    interval,
    indices,
    upper: indices.map((index) => merged.get(index)!.upper),
    lower: indices.map((index) => merged.get(index)!.lower),
    infinite,
  }
}
