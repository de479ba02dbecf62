import t from 'tap'
import { dpSgd, PldAccountant } from '../../lib/accounting/index.js'

const pld = (sigma: number, q: number, steps: number, relation: 'zero-out' | 'add-or-remove-one' | 'replace-one') =>
  new PldAccountant({ relation }).compose(dpSgd(sigma, q, steps))

t.test('the three relations at sigma 3, q 0.1, 512 steps, delta 1e-6', (t) => {
  t.equal(pld(3, 0.1, 512, 'zero-out').epsilon(1e-6).epsilon.toFixed(2), '3.77')
  t.equal(pld(3, 0.1, 512, 'add-or-remove-one').epsilon(1e-6).epsilon.toFixed(2), '3.77')
  t.ok(Math.abs(pld(3, 0.1, 512, 'replace-one').epsilon(1e-6).epsilon - 7.82) < 0.01)
  t.end()
})

t.test('asking changes nothing', (t) => {
  const accountant = pld(1, 0.01, 100, 'zero-out')
  const before = JSON.stringify(accountant.events)
  const first = accountant.epsilon(1e-5)
  accountant.delta(first.epsilon)
  t.same(accountant.epsilon(1e-5), first)
  t.equal(JSON.stringify(accountant.events), before)
  t.end()
})

t.test('bad input is named', (t) => {
  const accountant = pld(1, 0.01, 100, 'zero-out')
  t.throws(() => accountant.epsilon(0), { name: 'OutOfRangeError', message: /\[1e-30, 1\) for delta, got 0/ })
  t.throws(() => accountant.delta(-1), { name: 'OutOfRangeError', message: /epsilon, got -1/ })
  t.throws(() => dpSgd(0, 0.1, 1), { name: 'OutOfRangeError', message: /noiseMultiplier, got 0/ })
  t.throws(() => dpSgd(1, 1.5, 1), { name: 'OutOfRangeError', message: /\[0, 1\] for sampleRate, got 1.5/ })
  t.throws(() => dpSgd(1, 0.5, 1.5), { name: 'OutOfRangeError', message: /count, got 1.5/ })
  t.end()
})
