import fc from 'fast-check'
import t from 'tap'
import { dpSgd, type EpsilonBounds, PldAccountant, RdpAccountant } from '../../lib/accounting/index.js'

interface Parameters {
  readonly sampleRate: number
  readonly noiseMultiplier: number
  readonly steps: number
  readonly delta: number
}

/** Numbers in [low, high], even on a logarithmic scale, both ends included. */
const logarithmic = (low: number, high: number) =>
  fc.oneof(
    { weight: 8, arbitrary: fc.double({ min: 0, max: 1, noNaN: true }).map((u) => low * (high / low) ** u) },
    { weight: 1, arbitrary: fc.constantFrom(low, high) },
  )

/** The box that the accountant is made for. */
const parameters = fc.record({
  sampleRate: logarithmic(1e-8, 1),
  noiseMultiplier: logarithmic(0.05, 1e4),
  steps: fc.oneof(
    { weight: 12, arbitrary: logarithmic(1, 1e7).map(Math.round) },
    { weight: 1, arbitrary: fc.constant(0) },
  ),
  delta: logarithmic(1e-15, 0.999).map((delta) => Math.min(delta, 0.999)),
})

const relation = fc.constantFrom('zero-out' as const, 'replace-one' as const)

/** Where rare participation meets little noise, losses span more than 2^21 lattice points: the bracket is honest but wide. */
const isCorner = ({ sampleRate, noiseMultiplier }: Parameters) => sampleRate < 1e-3 && noiseMultiplier < 0.6

const sound = ({ epsilon, lowerBound, upperBound }: EpsilonBounds) =>
  lowerBound >= 0 && upperBound >= lowerBound && epsilon === upperBound && upperBound < Number.POSITIVE_INFINITY

/** Each parameter moved a little towards more epsilon. */
function costlier(at: Parameters, which: keyof Parameters, factor: number): Parameters {
  const value = at[which]
  if (which === 'sampleRate') return { ...at, sampleRate: Math.min(1, value * factor) }
  if (which === 'steps') return { ...at, steps: Math.min(1e7, Math.ceil(value * factor)) }
  return { ...at, [which]: Math.max(which === 'delta' ? 1e-15 : 0.05, value / factor) }
}

function within(seconds: number) {
  return { interruptAfterTimeLimit: 1000 * seconds, markInterruptAsFailure: false, numRuns: 1000, endOnFailure: true }
}

t.test('PLD: a sound bracket of the stated width, and monotone in every argument', (t) => {
  fc.assert(
    fc.property(
      parameters,
      relation,
      fc.constantFrom<keyof Parameters>('sampleRate', 'noiseMultiplier', 'steps', 'delta'),
      fc.double({ min: 1, max: 4, noNaN: true }),
      (at, relation, which, factor) => {
        const ask = ({ sampleRate, noiseMultiplier, steps, delta }: Parameters) =>
          new PldAccountant({ relation }).compose(dpSgd(noiseMultiplier, sampleRate, steps)).epsilon(delta)
        const here = ask(at)
        const more = costlier(at, which, factor)
        const there = ask(more)
        if (!sound(here) || !sound(there)) throw new Error(`not sound: ${JSON.stringify([here, there])}`)
        if (here.lowerBound > there.upperBound) throw new Error(`epsilon falls: ${JSON.stringify([here, there, more])}`)
        if (isCorner(at) || isCorner(more)) return
        for (const { lowerBound, upperBound } of [here, there]) {
          if (upperBound - lowerBound > 1e-3 * upperBound && upperBound > 1e-9) {
            throw new Error(`wide: ${lowerBound} to ${upperBound}`)
          }
        }
        // Two upper bounds are each within the stated error above numbers in the right order.
        if (here.upperBound > there.upperBound * (1 + 1e-3) + 1e-9) {
          throw new Error(`the upper bound falls: ${JSON.stringify([here, there])}`)
        }
      },
    ),
    within(35),
  )
  t.end()
})

t.test('PLD: delta is in [0, 1], between its bounds, and falls with epsilon', (t) => {
  fc.assert(
    fc.property(
      parameters,
      fc.double({ min: 0, max: 50, noNaN: true }),
      ({ sampleRate, noiseMultiplier, steps }, epsilon) => {
        const accountant = new PldAccountant().compose(dpSgd(noiseMultiplier, sampleRate, steps))
        const [here, there] = [accountant.delta(epsilon), accountant.delta(1.5 * epsilon + 0.01)]
        for (const { delta, lowerBound, upperBound } of [here, there]) {
          if (!(lowerBound >= 0 && lowerBound <= upperBound && upperBound <= 1 && delta === upperBound)) {
            throw new Error(`not sound: ${JSON.stringify(here)}`)
          }
        }
        if (there.lowerBound > here.upperBound) throw new Error(`delta rises: ${JSON.stringify([here, there])}`)
      },
    ),
    within(10),
  )
  t.end()
})

t.test('RDP: never below PLD, never NaN, monotone', (t) => {
  fc.assert(
    fc.property(
      parameters,
      fc.constantFrom<keyof Parameters>('sampleRate', 'noiseMultiplier', 'steps', 'delta'),
      (at, which) => {
        const ask = ({ sampleRate, noiseMultiplier, steps, delta }: Parameters) =>
          new RdpAccountant().compose(dpSgd(noiseMultiplier, sampleRate, steps)).epsilon(delta).epsilon
        const [here, there] = [ask(at), ask(costlier(at, which, 1.7))]
        if (!(here >= 0 && there >= here * (1 - 1e-6) - 1e-12)) throw new Error(`${here} and ${there}`)
      },
    ),
    within(8),
  )
  fc.assert(
    fc.property(parameters, ({ sampleRate, noiseMultiplier, steps, delta }) => {
      const event = dpSgd(noiseMultiplier, sampleRate, steps)
      const upper = new RdpAccountant().compose(event).epsilon(delta).epsilon
      const lower = new PldAccountant({ tolerance: 0.01 }).compose(event).epsilon(delta).lowerBound
      if (!(lower <= upper)) throw new Error(`${lower} and ${upper}`)
    }),
    within(6),
  )
  t.end()
})
