import type { MixturePair } from './mixture-pair.js'
import { RULE } from './quadrature.js'

/** Where a quadrature would need more panels than this, the order counts as not computable, hence infinite. */
const MOST_PANELS = 40_000
/** Standard deviations beyond the outermost mean of the integrand; what is left is below 1e-37. */
const REACH = 13

/**
 * log E_Q (p / q)^alpha for alpha > 1, by quadrature: exact to rounding at every order. Infinite where it would not be.
 */
export function logMoment(pair: MixturePair, alpha: number): number {
  // p^alpha q^(1 - alpha) is a sum of Gaussians' products, whose means lie between these.
  const above = Math.max(...pair.numerator.map(({ mean }) => mean))
  const below = Math.min(...pair.denominator.map(({ mean }) => mean))
  const least = Math.min(below, ...pair.numerator.map(({ mean }) => mean))
  const low = least - REACH * pair.sigma
  const high = Math.max(above, alpha * above - (alpha - 1) * below) + REACH * pair.sigma
  const panels = Math.ceil((high - low) / (0.5 * pair.scale))
  if (!(panels <= MOST_PANELS)) return Number.POSITIVE_INFINITY
  const half = (high - low) / panels / 2

  // E_Q (p / q)^alpha - 1 = E_Q [(1 + u)^alpha - 1 - alpha u] with u = p / q - 1: no term is negative, so nothing
  // cancels even where the moment exceeds 1 by 1e-24. `shift` keeps large moments in range.
  let shift = 0
  let sum = 0
  for (let panel = 0; panel < panels; panel++) {
    for (let k = 0; k < RULE.nodes.length; k++) {
      const x = low + (2 * panel + 1 + RULE.nodes[k]!) * half
      const loss = pair.loss(x)
      const logWeight = Math.log(RULE.weights[k]! * half) + pair.logDenominator(x)
      let exponent = alpha * loss + logWeight
      if (exponent - shift > 600) {
        sum *= Math.exp(shift - exponent)
        shift = exponent
      }
      exponent = logWeight - shift
      if (alpha * loss > 30)
        sum += Math.exp(alpha * loss + exponent) * -Math.expm1(Math.log(alpha) - (alpha - 1) * loss)
      else sum += excess(loss, alpha) * Math.exp(exponent)
    }
  }
  return shift === 0 ? Math.log1p(sum) : shift + Math.log(sum)
}

/** (1 + u)^alpha - 1 - alpha u with u = e^loss - 1. */
function excess(loss: number, alpha: number): number {
  const u = Math.expm1(loss)
  if (Math.abs(alpha * u) < 1e-3 && Math.abs(u) < 1e-3) {
    let term = (alpha * (alpha - 1) * u * u) / 2
    let sum = term
    for (let k = 3; k <= 7; k++) {
      term *= ((alpha - k + 1) * u) / k
      sum += term
    }
    return sum
  }
  return Math.expm1(alpha * loss) - alpha * u
}
