import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { OutOfRangeError } from '../../lib/errors.js'
import { sgd } from '../../lib/optim/sgd.js'
import { osKey, seedKey } from '../../lib/privacy/keys.js'
import { PrivacyEngine } from '../../lib/privacy/privacy-engine.js'
import { type BatchSampler, PoissonSampler, ShuffleSampler } from '../../lib/privacy/sampling.js'
import { tinyModel } from '../support/models.js'

const population = 400
const rate = 0.05
const steps = 5000

t.test('inclusions are independent and have the stated probability', (t) => {
  const sampler = new PoissonSampler(seedKey(31), population, rate)
  const perUnit = new Int32Array(population)
  const sizes = new Int32Array(steps)
  let [neighbours, repeats, opposite] = [0, 0, 0]
  let before = new Uint8Array(population)
  for (let step = 0; step < steps; step++) {
    const batch = sampler.sample(step)
    const included = new Uint8Array(population)
    for (const unit of batch) included[unit] = 1
    sizes[step] = batch.length
    for (let unit = 0; unit < population; unit++) {
      if (!included[unit]) continue
      perUnit[unit]!++
      neighbours += included[(unit + 1) % population]!
      if (unit < population / 2) opposite += included[unit + population / 2]!
      repeats += before[unit]!
    }
    before = included
  }
  const trials = population * steps
  const near = (count: number, n: number, p: number, what: string) => {
    const deviations = (count - n * p) / Math.sqrt(n * p * (1 - p))
    t.ok(Math.abs(deviations) < 5, `${what}: ${count} of ${n}, off by ${deviations} deviations`)
  }
  near(
    perUnit.reduce((sum, count) => sum + count, 0),
    trials,
    rate,
    'inclusions',
  )
  near(neighbours, trials, rate ** 2, 'neighbouring units together')
  near(opposite, trials / 2, rate ** 2, 'distant units together')
  near(repeats, trials, rate ** 2, 'a unit in two steps running')

  const chiSquared = perUnit.reduce((sum, count) => sum + (count - steps * rate) ** 2 / (steps * rate * (1 - rate)), 0)
  t.ok(Math.abs(chiSquared - population) < 5 * Math.sqrt(2 * population), `each unit: chi squared ${chiSquared}`)

  const variance = sizes.reduce((sum, size) => sum + (size - population * rate) ** 2, 0) / steps
  const expected = population * rate * (1 - rate)
  t.ok(
    Math.abs(variance - expected) < 5 * expected * Math.sqrt(2 / steps),
    `batch sizes vary by ${variance}, ${expected}`,
  )
  t.end()
})

t.test('batch sizes follow the binomial distribution', (t) => {
  const [n, p] = [20, 0.3]
  const sampler = new PoissonSampler(seedKey(32), n, p)
  const counts = new Array<number>(n + 1).fill(0)
  for (let step = 0; step < steps; step++) counts[sampler.sample(step).length]!++
  let chance = (1 - p) ** n
  let chiSquared = 0
  let cells = 0
  for (let size = 0; size <= n; size++) {
    const expected = steps * chance
    if (expected > 10) {
      chiSquared += (counts[size]! - expected) ** 2 / expected
      cells++
    }
    chance *= ((n - size) / (size + 1)) * (p / (1 - p))
  }
  t.ok(
    cells > 8 && Math.abs(chiSquared - cells) < 5 * Math.sqrt(2 * cells),
    `chi squared ${chiSquared} in ${cells} cells`,
  )
  t.end()
})

t.test('a sample is a pure function of key, step and unit', (t) => {
  const sampler = new PoissonSampler(seedKey(33), population, rate)
  const first = sampler.sample(7)
  sampler.sample(8)
  t.same(sampler.sample(7), first, 'nothing is carried from step to step')
  t.same(new PoissonSampler(seedKey(33), population, rate).sample(7), first, 'nor from sampler to sampler')
  t.notSame(sampler.sample(8), first, 'another step')
  t.notSame(new PoissonSampler(seedKey(34), population, rate).sample(7), first, 'another key')
  const longer = new PoissonSampler(seedKey(33), 2 * population, rate).sample(7)
  t.same(
    longer.filter((unit) => unit < population),
    first,
    'other units do not change whether a unit is in',
  )
  const wider = new Set(new PoissonSampler(seedKey(33), population, 2 * rate).sample(7))
  t.ok(
    first.every((unit) => wider.has(unit)),
    'a higher rate only adds units',
  )
  t.ok(
    first.every((unit, i) => unit >= 0 && unit < population && (i === 0 || unit > first[i - 1]!)),
    'rising, each unit once',
  )
  t.end()
})

t.test('the ends of the rate', (t) => {
  t.equal(new PoissonSampler(osKey(), 10, 1).sample(0).length, 10, 'rate 1: every unit')
  t.equal(new PoissonSampler(osKey(), 1000, 1e-12).sample(0).length, 0, 'rate near 0: empty')
  t.equal(new PoissonSampler(osKey(), 0, 0.5).sample(0).length, 0, 'no data: empty')
  for (const wrong of [0, -0.1, 1.0000001, Number.NaN]) {
    t.throws(() => new PoissonSampler(osKey(), 10, wrong), OutOfRangeError, `rate ${wrong}`)
  }
  t.end()
})

t.test('a shuffle has batches of one size, each unit once per pass, and is refused by private training', (t) => {
  using device = Device.open('cpu', { threads: 1 })
  const shuffle = new ShuffleSampler(population, 20, seedKey(35))
  const seen = new Int32Array(population)
  for (let step = 0; step < 20; step++) {
    const batch = shuffle.sample(step)
    if (batch.length !== 20) t.fail('a batch of another size')
    for (const unit of batch) seen[unit]!++
  }
  t.ok(
    seen.every((count) => count === 1),
    'each unit once',
  )
  const model = tinyModel(device)
  const options = {
    module: model,
    optimizer: sgd(model.parameters(), { learningRate: 1 }),
    data: { length: population },
    noiseMultiplier: 1,
    maxGradNorm: 1,
    expectedBatchSize: 20,
    steps: 10,
  }
  const masked: BatchSampler = { kind: 'shuffle', population, sampleRate: rate, sample: (step) => shuffle.sample(step) }
  for (const accountant of ['pld', 'rdp'] as const) {
    for (const sampler of [shuffle, masked]) {
      t.throws(
        () => new PrivacyEngine({ accountant }).makePrivate({ ...options, sampler }),
        { name: 'DpMoeError', code: 'NOT_PRIVATE', message: /Poisson/ },
        `${accountant}`,
      )
    }
  }
  for (const wrong of [new PoissonSampler(osKey(), population, 2 * rate), new PoissonSampler(osKey(), 10, rate)]) {
    t.throws(() => new PrivacyEngine().makePrivate({ ...options, sampler: wrong }), { code: 'INVALID_ARGUMENT' })
  }
  t.end()
})
