/** Attempts that may bring little before the search ends with the bracket it has. */
const STALLS = 2

/**
 * How finely losses are put on a lattice: finer from attempt to attempt until the bracket is narrow enough, coarser where
 * the lattice would be too large.
 */
export class Resolution {
  /** Points per standard deviation of one release. */
  value: number
  #fitting = 0
  #lastGap = Number.POSITIVE_INFINITY
  #stalls = 0

  constructor(value: number) {
    this.value = value
  }

  /** After a lattice that was too large; false where a coarser one would be no better than one already used. */
  coarsen(): boolean {
    this.value = Math.sqrt(this.value * (this.#fitting || this.value / 16))
    return this.value >= 1.2 * this.#fitting
  }

  /** After a lattice that was not too large. */
  fits(): void {
    this.#fitting = this.value
  }

  /** Whether a bracket `gap` wide is narrow enough, or further attempts would make it no narrower. */
  settles(gap: number, allowed: number): boolean {
    if (gap <= allowed || (gap > 0.8 * this.#lastGap && ++this.#stalls === STALLS)) return true
    this.#lastGap = gap
    return false
  }

  /** As fine as a bracket `ratio` times as wide as allowed needs. */
  refine(ratio: number): void {
    this.value *= Math.min(8, Math.max(1.3, Math.sqrt(1.6 * ratio)))
  }
}
