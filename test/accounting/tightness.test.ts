import t from 'tap'
import { PldAccountant } from '../../lib/accounting/index.js'
import { goldenRows } from './golden-rows.js'

t.test("as tight as dp_accounting's default lattice to 6 digits, where asked to be as tight as can be", (t) => {
  for (const { question, delta, value, interval, label, library } of goldenRows()) {
    if (question.ask !== 'epsilon' || !/pld/.test(library) || interval !== 1e-4) continue
    const accountant = new PldAccountant({ relation: question.relation, tolerance: 1e-6 })
    const { upperBound } = accountant.compose(question.event).epsilon(delta)
    t.ok(upperBound <= value * (1 + 3e-7), `${label}: ${upperBound} against ${value}`)
  }
  t.end()
})
