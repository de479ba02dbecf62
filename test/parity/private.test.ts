import { readdir } from 'node:fs/promises'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { Device } from '../../lib/engine/device.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { loadSubject, type ParitySequence, readCase } from '../support/parity.js'
import { plainGradients, rowsOfUnit, squaredNormsByParameter, stepRandom } from '../support/sites.js'

// Each model of the fixtures in private training: what a batch gives is held to its units one at a time.

const fixtures = fileURLToPath(new URL('./fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())
const random = stepRandom(device)

const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0)
const squaredNorm = (values: Float64Array) => values.reduce((total, value) => total + value * value, 0)

const entries = await readdir(fixtures, { withFileTypes: true })
for (const { name } of entries.filter((entry) => entry.isDirectory())) {
  t.test(name, async (t) => {
    const folder = `${fixtures}${name}`
    const parityCase = await readCase(folder)
    const { model, batch, loss } = await loadSubject(device, folder, { ...parityCase, routerLoss: true })
    const subject = { device, module: model, loss, batch }
    const units: ParitySequence[] = parityCase.sequences.map((sequence, unit) => ({ ...sequence, unit: 10 + unit }))
    const alone: Map<string, Float64Array>[] = []
    for (const unit of units) alone.push(await plainGradients(subject, [unit], random))

    await t.test(`the gradient norms of units are those of each alone`, async (t) => {
      const norms = await squaredNormsByParameter(subject, units, random)
      t.equal(norms.size, model.trainableParameters().length)
      const off = [...norms].flatMap(([parameter, values]) =>
        values.flatMap((value, unit) => {
          const expected = squaredNorm(alone[unit]!.get(parameter)!)
          // The Gram form is an upper bound, up to 2e-3 too high; zero but for rounding counts as zero.
          const near = value >= expected * (1 - 1e-4) - 1e-9 && value <= expected * (1 + 2.5e-3) + 1e-9
          return near ? [] : [`${parameter} of unit ${unit}: ${value}, expected ${expected}`]
        }),
      )
      t.strictSame(off, [])
    })

    await t.test(`the clipped sum is that of units clipped one at a time`, async (t) => {
      const whole = alone.map((gradients) => Math.sqrt(sum([...gradients.values()].map(squaredNorm))))
      const bound = [...whole].sort((a, b) => a - b)[1]!
      const parameters = model.trainableParameters()
      const group = { name: 'all', parameters, bound, release: 'gradient' } as const
      device.scope(() => {
        const statistics = device.zeros([1, 3], { dtype: 'float64' })
        const clipping = { mode: 'flat', maxGradNorm: bound, groups: [group] } as const
        const sink = new ClippedSumSink(device, clipping, units.length, statistics)
        const tape = new Tape(device, sink)
        tape.backward(loss(batch(units), { tape, training: true, random }))
        sink.finish()
      })
      let difference = 0
      let size = 0
      for (const parameter of parameters) {
        const actual = await parameter.gradient.data()
        parameter.gradient.fill(0)
        actual.forEach((value, i) => {
          const expected = sum(
            whole.map(
              (norm, unit) => Math.min(1, (bound * (1 - 2 ** -10)) / norm) * alone[unit]!.get(parameter.name)![i]!,
            ),
          )
          difference += (value - expected) ** 2
          size += expected ** 2
        })
      }
      t.ok(size > 0)
      t.ok(Math.sqrt(difference / size) < 1e-3, `off by ${Math.sqrt(difference / size)}`)
    })

    await t.test(`what backward hands over about a unit has the same bits in any batch`, async (t) => {
      const first = await rowsOfUnit(subject, units, 2, random)
      const ids = [...units[1]!.ids, ...units[0]!.ids]
      const other = { ...units[0]!, ids, tokenTypes: ids.map(() => 1), unit: 77 }
      t.strictSame(await rowsOfUnit(subject, [units[2]!], 0, random), first)
      t.strictSame(await rowsOfUnit(subject, [other, units[1]!, units[2]!, units[0]!], 2, random), first)
    })
    model[Symbol.dispose]()
  })
}
