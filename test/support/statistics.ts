import normalCdf from '@stdlib/stats-base-dists-normal-cdf'

/** Kolmogorov's statistic sqrt(n) sup |F_n - F| against N(0, 1); P(> 2.2) = 1.3e-4 whatever n. */
export function kolmogorov(sample: ArrayLike<number>): number {
  const sorted = Float64Array.from(sample).sort()
  const n = sorted.length
  let furthest = 0
  sorted.forEach((value, i) => {
    const expected = normalCdf(value, 0, 1)
    furthest = Math.max(furthest, Math.abs((i + 1) / n - expected), Math.abs(expected - i / n))
  })
  return Math.sqrt(n) * furthest
}

/** Correlation of two samples of mean 0: 1 for multiples of each other. */
export function correlation(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let [ab, aa, bb] = [0, 0, 0]
  for (let i = 0; i < a.length; i++) {
    ab += a[i]! * b[i]!
    aa += a[i]! ** 2
    bb += b[i]! ** 2
  }
  return ab / Math.sqrt(aa * bb)
}

/** {@link correlation} in standard deviations of what independent samples would have. */
export function correlationInDeviations(a: ArrayLike<number>, b: ArrayLike<number>): number {
  return correlation(a, b) * Math.sqrt(a.length)
}

/** The mean square of a sample of N(0, 1), in standard deviations from 1. */
export function varianceInDeviations(sample: Float64Array): number {
  const mean = sample.reduce((sum, value) => sum + value * value, 0) / sample.length
  return (mean - 1) / Math.sqrt(2 / sample.length)
}
