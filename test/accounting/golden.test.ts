import t from 'tap'
import {
  createAccountant,
  type EpsilonBounds,
  gaussianEpsilon,
  gaussianNoiseMultiplier,
  PldAccountant,
  solve,
} from '../../lib/accounting/index.js'
import { type GoldenRow, goldenRows } from './golden-rows.js'

/** Units in the last digit that golden.json prints of its computed rows. */
const PRINTED = 1e-9
/** Opacus' PRV accountant adds 0.01 to its estimate; against dp_accounting its rows differ by up to this much. */
const OPACUS_PAD = 0.0145

const rows = goldenRows()
const known = new Map<string, EpsilonBounds>()

function epsilon({ question, delta }: GoldenRow): EpsilonBounds {
  if (question.ask !== 'epsilon') throw new RangeError('no row that asks for epsilon')
  const key = JSON.stringify([question, delta])
  const value =
    known.get(key) ?? createAccountant(question.accountant, question.relation).compose(question.event).epsilon(delta)
  known.set(key, value)
  return value
}

/** Rows of the libraries whose accountant's name fits, which ask for epsilon. */
const asking = (library: RegExp) => rows.filter((row) => row.question.ask === 'epsilon' && library.test(row.library))

t.test('every row but the tree mechanism is asked', (t) => {
  t.equal(rows.length, 130)
  t.same(
    rows.filter(({ question }) => question.ask === 'later').map(({ label }) => label.split(' ')[0]),
    ['tree'],
  )
  t.end()
})

t.test('PLD rows of dp_accounting: an upper bound that ours brackets within its stated 1e-3', (t) => {
  for (const row of asking(/pld/)) {
    const { lowerBound, upperBound } = epsilon(row)
    t.ok(lowerBound <= row.value + PRINTED, `${row.label}: ${lowerBound} is below ${row.value}`)
    t.ok(upperBound - lowerBound <= 1e-3 * upperBound, `${row.label}: bracket`)
    t.ok(upperBound <= row.value * (1 + 2e-4), `${row.label}: ${upperBound} is not above ${row.value}`)
    // Their lattice rounds every release up; with few releases and a small epsilon by up to an interval.
    t.ok(
      row.value <= upperBound * (1 + 1e-3) + row.interval,
      `${row.label}: ${row.value} is not far above ${upperBound}`,
    )
  }
  t.end()
})

t.test('PRV rows of Opacus: padded by 0.01, so ours is tighter in every one', (t) => {
  for (const row of asking(/prv/)) {
    const { lowerBound, upperBound } = epsilon(row)
    t.ok(lowerBound <= row.value && upperBound <= row.value, `${row.label}: ${upperBound} is below ${row.value}`)
    t.ok(upperBound >= row.value - OPACUS_PAD, `${row.label}: ${upperBound} is near ${row.value}`)
  }
  t.end()
})

t.test('RDP rows: never above theirs, which try few orders and pad fractional ones', (t) => {
  for (const row of asking(/rdp/)) {
    const { epsilon: ours } = epsilon(row)
    t.ok(ours <= row.value * (1 + 1e-8), `${row.label}: ${ours} is not above ${row.value}`)
    t.ok(ours >= row.value * 0.985, `${row.label}: ${ours} is near ${row.value}`)
  }
  t.end()
})

t.test('PLD is tighter than RDP wherever both have a row', (t) => {
  for (const row of asking(/rdp/)) {
    const { question, delta, label } = row
    if (question.ask !== 'epsilon' || question.event.type !== 'self-composed') continue
    if (question.event.event.type !== 'poisson-sampled') continue
    const pld = new PldAccountant({ relation: question.relation }).compose(question.event).epsilon(delta)
    t.ok(pld.upperBound <= epsilon(row).epsilon, label)
  }
  t.end()
})

t.test('the analytic Gaussian', (t) => {
  for (const { question, delta, value, label } of rows) {
    if (question.ask === 'gaussian-epsilon') {
      t.ok(Math.abs(gaussianEpsilon(question.noiseMultiplier, delta) / value - 1) < 1e-10, label)
    } else if (question.ask === 'gaussian-noise') {
      t.ok(Math.abs(gaussianNoiseMultiplier(question.epsilon, delta) / value - 1) < 1e-10, label)
    }
  }
  t.end()
})

t.test('calibrated noise: what dp_accounting calibrates to, to 5 digits, and the target is kept', (t) => {
  for (const { question, delta, value, label } of rows) {
    if (question.ask !== 'noise') continue
    const { accountant, epsilon: target, sampleRate, steps } = question
    const solution = solve({ accountant, epsilon: target, delta, sampleRate, steps })
    t.ok(solution.noiseMultiplier <= value * (1 + 1.5e-5), `${label}: ${solution.noiseMultiplier} against ${value}`)
    // Its Renyi divergences are padded at fractional orders, hence its noise too.
    const least = accountant === 'rdp' ? 1 - 3e-4 : 1 - 1e-5
    t.ok(solution.noiseMultiplier >= value * least, `${label}: ${solution.noiseMultiplier} near ${value}`)
    t.ok(solution.epsilon <= target && solution.epsilon >= target * 0.999, `${label}: ${solution.epsilon}`)
  }
  t.end()
})
