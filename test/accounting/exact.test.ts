import normalCdf from '@stdlib/stats-base-dists-normal-cdf'
import t from 'tap'
import { Composition } from '../../lib/accounting/composition.js'
import { directedLosses } from '../../lib/accounting/directed-losses.js'
import { gaussian, poissonSampled } from '../../lib/accounting/index.js'

/**
 * The exact delta of a sampled Gaussian from first principles, with nothing of lib/accounting: P is the data set with the
 * unit, Q the one without; `remove` measures P against Q, `add` Q against P.
 */
class Exact {
  constructor(
    readonly sigma: number,
    readonly q: number,
    readonly direction: 'remove' | 'add',
  ) {}

  /** log p(x) / q(x) for `remove`; its negative for `add`. */
  loss(x: number): number {
    const ratio = Math.log1p(this.q * Math.expm1((x - 0.5) / this.sigma ** 2))
    return this.direction === 'remove' ? ratio : -ratio
  }

  /** Density of the first of the pair. */
  density(x: number): number {
    const bell = (z: number) => Math.exp(-0.5 * z * z) / (this.sigma * Math.sqrt(2 * Math.PI))
    const without = bell(x / this.sigma)
    return this.direction === 'add' ? without : (1 - this.q) * without + this.q * bell((x - 1) / this.sigma)
  }

  /** delta of one step at any real epsilon: both tails beyond the x where the loss is epsilon. */
  delta(epsilon: number): number {
    const { sigma, q } = this
    const odds = Math.expm1(this.direction === 'remove' ? epsilon : -epsilon) / q + 1
    if (odds <= 0) return this.direction === 'remove' ? -Math.expm1(epsilon) : 0
    const edge = 0.5 + sigma ** 2 * Math.log(odds)
    const above = this.direction === 'remove'
    const tail = (mean: number) => normalCdf(above ? mean - edge : edge - mean, 0, sigma)
    const [sampled, without] = [(1 - q) * tail(0) + q * tail(1), tail(0)]
    return above ? sampled - Math.exp(epsilon) * without : without - Math.exp(epsilon) * sampled
  }

  /** delta of `steps` steps, by Simpson's rule over all steps but one. */
  composed(steps: number, epsilon: number, points: number): number {
    if (steps === 1) return this.delta(epsilon)
    const [low, high] = [-9 * this.sigma, 1 + 9 * this.sigma]
    const width = (high - low) / points
    let sum = 0
    for (let i = 0; i <= points; i++) {
      const x = low + i * width
      const weight = i === 0 || i === points ? 1 : i % 2 ? 4 : 2
      sum += weight * this.density(x) * this.composed(steps - 1, epsilon - this.loss(x), points)
    }
    return (sum * width) / 3
  }
}

t.test('one, two and three steps lie in the bracket, in both directions', (t) => {
  for (const [sigma, q, steps, points] of [
    [1, 0.01, 1, 0],
    [0.5, 0.3, 1, 0],
    [2, 0.9, 1, 0],
    [8, 0.001, 1, 0],
    [0.8, 0.001, 2, 20_000],
    [1, 0.2, 2, 20_000],
    [3, 0.5, 2, 20_000],
    [0.7, 0.05, 3, 1000],
    [1.5, 0.4, 3, 1000],
  ] as const) {
    const losses = directedLosses(poissonSampled(q, gaussian(sigma)), 'zero-out', 'pld')!
    for (const direction of ['remove', 'add'] as const) {
      const composition = new Composition([{ model: losses[direction]!, count: steps }], 1e-4)
      const truth = new Exact(sigma, q, direction)
      const scale = q / sigma
      for (const epsilon of steps === 3 ? [0, 0.5, 2] : [0, 0.3 * scale, scale, 0.5, 2]) {
        const exact = truth.composed(steps, epsilon, points)
        if (exact < 1e-12) continue // the differences above have no digits left there
        const { lower, upper } = composition.delta(epsilon)
        const label = `sigma ${sigma}, q ${q}, ${steps} steps, ${direction}, eps ${epsilon}`
        // What the reference's own cancellation and Simpson's rule leave uncertain.
        const slack = 2e-14 + (steps === 3 ? 1e-5 : 1e-9) * exact
        t.ok(lower <= exact + slack && exact - slack <= upper, `${label}: ${lower} <= ${exact} <= ${upper}`)
        if (exact > 1e-10) t.ok(upper - lower <= 1e-4 * upper, `${label}: ${upper - lower} wide`)
      }
    }
  }
  t.end()
})

t.test('epsilon is where the exact delta passes', (t) => {
  for (const [sigma, q, steps, delta] of [
    [1, 0.01, 1, 1e-5],
    [0.8, 0.001, 2, 1e-6],
    [1, 0.2, 2, 1e-6],
  ] as const) {
    const losses = directedLosses(poissonSampled(q, gaussian(sigma)), 'zero-out', 'pld')!
    const { lower, upper } = new Composition([{ model: losses.remove, count: steps }], 1e-5).epsilon(delta)
    const truth = new Exact(sigma, q, 'remove')
    t.ok(truth.composed(steps, upper, 20_000) <= delta * (1 + 1e-8), `delta at ${upper}`)
    t.ok(truth.composed(steps, lower, 20_000) >= delta * (1 - 1e-8), `delta at ${lower}`)
  }
  t.end()
})
