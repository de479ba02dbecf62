import logGamma from '@stdlib/math-base-special-gammaln'

/** P(X > k) for X binomial (trials, probability), to a relative 1e-9 at a million trials. */
export function upperTailOfBinomial(k: number, trials: number, probability: number): number {
  if (k >= trials || probability === 0) return 0
  if (k < 0 || probability === 1) return 1
  const first = k + 1
  const mode = Math.floor((trials + 1) * probability)
  // The smaller tail is summed: terms fall off from its end that is nearer the mode.
  if (first > mode) return Math.min(1, sumOfTerms(first, 1, trials, probability))
  return Math.max(0, 1 - sumOfTerms(k, -1, trials, probability))
}

/** Sum of the probabilities from `start` on, up (1) or down (-1), until the terms no longer matter. */
function sumOfTerms(start: number, step: 1 | -1, trials: number, probability: number): number {
  const odds = probability / (1 - probability)
  const logFirst =
    logGamma(trials + 1) -
    logGamma(start + 1) -
    logGamma(trials - start + 1) +
    start * Math.log(probability) +
    (trials - start) * Math.log1p(-probability)
  let term = 1
  let sum = 0
  for (let i = start; i >= 0 && i <= trials && term > 1e-18 * sum; i += step) {
    sum += term
    term *= step === 1 ? ((trials - i) / (i + 1)) * odds : i / (trials - i + 1) / odds
  }
  return Math.exp(logFirst) * sum
}

/** P(X >= k) for k = 0 .. trials, X binomial (trials, probability). */
export function binomialTails(trials: number, probability: number): Float64Array {
  const tails = new Float64Array(trials + 2)
  const logOdds = Math.log(probability) - Math.log1p(-probability)
  let logTerm = trials * Math.log(probability)
  for (let k = trials; k >= 0; k--) {
    tails[k] = Math.min(1, tails[k + 1]! + Math.exp(logTerm))
    if (k > 0) logTerm += Math.log(k / (trials - k + 1)) - logOdds
  }
  return tails.subarray(0, trials + 1)
}
