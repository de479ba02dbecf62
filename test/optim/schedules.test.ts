import t from 'tap'
import { type ScheduleName, schedule } from '../../lib/optim/schedules.js'

const names = ['constant', 'linear', 'cosine', 'stable-decay'] as const

const at = (name: ScheduleName, steps: number, warmup: number, ...asked: number[]) =>
  asked.map((step) => Number(schedule(name, steps, warmup)(step).toFixed(6)))

t.test('each schedule at its corners', (t) => {
  t.same(at('constant', 100, 0, 0, 50, 99, 1000), [1, 1, 1, 1])
  t.same(at('linear', 100, 0, 0, 25, 50, 100, 1000), [1, 0.75, 0.5, 0, 0])
  t.same(at('cosine', 100, 0, 0, 50, 100), [1, 0.5, 0])
  t.same(at('stable-decay', 100, 0, 0, 50, 75, 100, 1000), [1, 1, 0.5, 0, 0])
  t.same(at('cosine', 100, 0, 25), [Number(((1 + Math.SQRT1_2) / 2).toFixed(6))])
  t.end()
})

t.test('warm-up rises to 1, and the rest begins there', (t) => {
  for (const name of names) {
    t.same(at(name, 100, 10, 0, 4, 9), [0.1, 0.5, 1], name)
    t.equal(schedule(name, 100, 10)(10), 1, name)
  }
  t.same(at('linear', 110, 10, 60, 110), [0.5, 0])
  t.same(at('linear', 10, 10, 9, 10), [1, 1], 'all warm-up')
  t.end()
})

t.test('no factor leaves [0, 1]', (t) => {
  for (const name of names) {
    for (const warmup of [0, 1, 7]) {
      const factor = schedule(name, 7, warmup)
      for (let step = 0; step < 20; step++) {
        const value = factor(step)
        if (!(value >= 0 && value <= 1)) t.fail(`${name}, warm-up ${warmup}, step ${step}: ${value}`)
      }
    }
  }
  t.end()
})

t.test('steps and warm-up must be whole and fit', (t) => {
  for (const steps of [0, 1.5, Number.NaN]) t.throws(() => schedule('linear', steps), { message: /steps/ })
  for (const warmup of [-1, 8, 0.5]) t.throws(() => schedule('linear', 7, warmup), { message: /warmupSteps/ })
  t.end()
})
