/** A Gauss-Legendre rule on [-1, 1]. */
export interface QuadratureRule {
  readonly nodes: Float64Array
  readonly weights: Float64Array
}

/** Gauss-Legendre nodes and weights by Newton's method on the Legendre recurrence. */
export function gaussLegendre(order: number): QuadratureRule {
  const nodes = new Float64Array(order)
  const weights = new Float64Array(order)
  for (let i = 0; i < order; i++) {
    let x = Math.cos((Math.PI * (i + 0.75)) / (order + 0.5))
    let derivative = 0
    for (let iteration = 0; iteration < 8; iteration++) {
      let previous = 1
      let current = x
      for (let k = 2; k <= order; k++) {
        const next = ((2 * k - 1) * x * current - (k - 1) * previous) / k
        previous = current
        current = next
      }
      derivative = (order * (x * current - previous)) / (x * x - 1)
      x -= current / derivative
    }
    nodes[order - 1 - i] = x
    weights[order - 1 - i] = 2 / ((1 - x * x) * derivative * derivative)
  }
  return { nodes, weights }
}

/** The rule that every integral over a piece of a Gaussian density uses. */
export const RULE = gaussLegendre(10)
