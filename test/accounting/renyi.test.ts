import t, { type Test } from 'tap'
import {
  composed,
  dpSgd,
  epsilonDelta,
  gaussian,
  poissonSampled,
  RdpAccountant,
  solve,
  zcdp,
  zcdpEpsilon,
} from '../../lib/accounting/index.js'

const close = (t: Test, actual: number, expected: number, relative: number, label: string) =>
  t.ok(Math.abs(actual - expected) <= relative * Math.abs(expected), `${label}: ${actual} against ${expected}`)

const rdp = (sigma: number, q: number, alpha: number, steps = 1) =>
  new RdpAccountant().compose(dpSgd(sigma, q, steps)).rdp(alpha)

t.test('per step, integer and fractional orders alike: 30-digit quadrature', (t) => {
  const orders = [1.5, 2.5, 3.9, 5, 10.5, 32]
  const table: [number, number, number[]][] = [
    [
      0.01,
      2.5,
      [
        1.30014179437608e-5, 2.17083611383625e-5, 3.3951465997685e-5, 4.36151312461576e-5, 9.25274636567139e-5,
        0.000293979484911201,
      ],
    ],
    [
      0.04,
      1.5,
      [
        0.000663111693911725, 0.00113280346647016, 0.00183320219958386, 0.00242392469237659, 0.00622135427391391,
        3.78842631431153,
      ],
    ],
    [
      0.01,
      1,
      [
        0.00012725374332745, 0.00021757533228188, 0.000353014022321374, 0.000468667242169155, 0.188339691379554,
        11.2462759370481,
      ],
    ],
    [
      0.001,
      0.8,
      [
        2.81646456833265e-6, 4.73319031184834e-6, 7.47487686966527e-6, 9.68305727303961e-6, 0.569108494612286,
        17.8694139055668,
      ],
    ],
    [
      0.1,
      3,
      [
        0.000876132077463968, 0.00147614525371282, 0.00233879750135745, 0.00303610388604091, 0.00681515656629707,
        0.0307735889014076,
      ],
    ],
    [
      0.5,
      2,
      [
        0.0498193776320932, 0.0886298455242461, 0.152339733309546, 0.211605151222633, 0.658509950380053,
        3.28493862053733,
      ],
    ],
  ]
  for (const [q, sigma, values] of table) {
    for (const [i, alpha] of orders.entries()) {
      close(t, rdp(sigma, q, alpha), values[i]!, 1e-11, `q ${q}, sigma ${sigma}, order ${alpha}`)
    }
  }
  t.end()
})

t.test("Google's vector: equal at integer orders, padded at fractional ones", (t) => {
  for (const [alpha, value] of [
    [5, 2.18075656e-3],
    [50, 2.38460375e-2],
    [100, 1.67416308e2],
  ] as const) {
    close(t, rdp(2.5, 0.01, alpha, 50), value, 1e-4, `order ${alpha}`)
  }
  for (const [alpha, value] of [
    [1.5, 6.70579741e-4],
    [2.5, 1.0854871e-3],
  ] as const) {
    const ours = rdp(2.5, 0.01, alpha, 50)
    t.ok(ours < value && ours > value * 0.95, `order ${alpha}: ${ours} below ${value}`)
  }
  t.end()
})

t.test("Opacus' best order gives Opacus' epsilon, which is exact; all orders together a smaller one", (t) => {
  const accountant = new RdpAccountant().compose(dpSgd(1.5, 0.04, 2250))
  const at = (alpha: number) => accountant.rdp(alpha) + Math.log1p(-1 / alpha) - Math.log(1e-5 * alpha) / (alpha - 1)
  close(t, at(3.9), 7.3291111714, 1e-10, 'order 3.9')
  t.ok(accountant.epsilon(1e-5).epsilon < 7.3291111714)
  t.end()
})

t.test('the Gaussian and zCDP: alpha / (2 sigma^2)', (t) => {
  const [sigma, alpha] = [2.7, 3.1]
  close(t, new RdpAccountant().compose(gaussian(sigma)).rdp(alpha), alpha / (2 * sigma * sigma), 1e-12, 'Gaussian')
  for (const order of [1.1, 2, 7.3, 64]) {
    const byRho = new RdpAccountant().compose(zcdp(0.5 / sigma ** 2)).rdp(order)
    close(t, byRho, new RdpAccountant().compose(gaussian(sigma)).rdp(order), 1e-12, `zCDP, order ${order}`)
  }
  // Any order's bound is one; the best is at most the closed form rho + 2 sqrt(rho log(1 / delta)).
  t.ok(zcdpEpsilon(0.1, 1e-6) <= 0.1 + 2 * Math.sqrt(0.1 * Math.log(1e6)))
  t.end()
})

t.test('orders where sums of alternating terms fail', (t) => {
  for (let k = 0; k <= 20; k++) t.ok(rdp(12, 0.4, 58.5 + k / 20) > 0, `order ${58.5 + k / 20}`)
  for (const alpha of [1.0001, 1.01, 1.1, 1.3, 1.7, 1.9]) {
    // Renyi divergence grows with the order, and near 1 is that of order 2 at most.
    const value = rdp(1, 0.1, alpha)
    t.ok(value > 0 && value <= rdp(1, 0.1, 2), `order ${alpha}: ${value}`)
  }
  for (const [q, sigma, alpha] of [
    [1e-7, 0.1, 1.01],
    [1e-6, 0.1, 256],
    [1e-5, 0.1, 256.1],
    [1e-6, 1, 27],
    [1e-4, 1, 1.5],
    [1e-3, 1, 2],
    [0.01, 10, 20],
    [0.1, 100, 20.5],
    [0.99, 0.1, 256],
    [0.999, 100, 256.1],
  ] as const) {
    close(
      t,
      (alpha - 1) * rdp(sigma, q, alpha),
      logMomentBySimpson(q, sigma, alpha),
      1e-6,
      `q ${q}, sigma ${sigma}, order ${alpha}`,
    )
  }
  t.end()
})

/** log E_Q (p / q)^alpha of a sampled Gaussian by Simpson's rule on (p / q)^alpha - 1 - alpha (p / q - 1). */
function logMomentBySimpson(q: number, sigma: number, alpha: number): number {
  const [low, high, count] = [-12 * sigma - 1, alpha + 12 * sigma + 1, 400_000]
  const step = (high - low) / count
  const logs: number[] = []
  const signs: number[] = []
  for (let i = 0; i <= count; i++) {
    const x = low + i * step
    const u = q * Math.expm1((x - 0.5) / (sigma * sigma))
    const logRatio = u === Number.POSITIVE_INFINITY ? Math.log(q) + (x - 0.5) / (sigma * sigma) : Math.log1p(u)
    const small = Math.abs(alpha * u) < 1e-4
    const power = alpha * logRatio
    const excess = small
      ? ((alpha * (alpha - 1) * u * u) / 2) * (1 + ((alpha - 2) * u) / 3)
      : Math.expm1(power) - alpha * u
    const logExcess = power > 300 ? power : Math.log(Math.abs(excess))
    logs.push(logExcess - (x * x) / (2 * sigma * sigma) + Math.log(i === 0 || i === count ? 1 : i % 2 ? 4 : 2))
    signs.push(power > 300 ? 1 : Math.sign(excess))
  }
  const largest = logs.reduce((a, b) => Math.max(a, b))
  const sum = logs.reduce((total, value, i) => total + signs[i]! * Math.exp(value - largest), 0)
  const logExcess = largest + Math.log((sum * step) / 3) - Math.log(sigma * Math.sqrt(2 * Math.PI))
  return logExcess > 30 ? logExcess : Math.log1p(Math.exp(logExcess))
}

t.test('(epsilon, delta) events shift delta', (t) => {
  const gauss = gaussian(2)
  const shifted = new RdpAccountant().compose(composed(gauss, epsilonDelta(0, 0.01))).epsilon(0.02).epsilon
  close(t, shifted, new RdpAccountant().compose(gauss).epsilon(1 - 0.98 / 0.99).epsilon, 1e-10, 'one')
  const ten = new RdpAccountant().compose(gauss).compose(epsilonDelta(0, 0.001), 10).epsilon(0.02).epsilon
  close(t, ten, new RdpAccountant().compose(gauss).epsilon(1 - 0.98 / 0.999 ** 10).epsilon, 1e-10, 'ten')
  t.equal(new RdpAccountant().compose(gauss).compose(epsilonDelta(0, 0.001), 10).epsilon(0.009).epsilon, Infinity)
  t.end()
})

t.test("calibration: Opacus' bisection ends within 0.01 below its target", (t) => {
  for (const [sigma, steps] of [
    [1.416, 2250],
    [1.3562, 2000],
  ] as const) {
    const { epsilon } = new RdpAccountant().compose(dpSgd(sigma, 0.04, steps)).epsilon(1e-5)
    t.ok(epsilon <= 8 && epsilon >= 7.98, `${sigma}: ${epsilon}`)
  }
  for (const [sigma, steps] of [
    [1.34765625, 2250],
    [1.2915, 2000],
  ] as const) {
    // Opacus' value has 0.01 on top.
    const { epsilon } = solve({ noiseMultiplier: sigma, sampleRate: 0.04, steps, delta: 1e-5 })
    t.ok(epsilon + 0.01 <= 8.0005 && epsilon + 0.01 >= 7.98, `${sigma}: ${epsilon}`)
  }
  t.end()
})

t.test('an event that RDP cannot handle is refused by name', (t) => {
  const nested = poissonSampled(0.1, poissonSampled(0.1, gaussian(1)))
  t.throws(() => new RdpAccountant().compose(nested), { name: 'OutOfRangeError', message: /RDP.*poisson-sampled/ })
  t.end()
})
