import type { Test } from 'tap'
import type { UnitBatch } from '../../lib/nn/accumulate.js'
import { plainGradients, type Subject, squaredNormsByParameter, stepRandom } from './sites.js'

const squares = (values: Float64Array) => values.reduce((sum, value) => sum + value * value, 0)

/**
 * Each parameter's squared norm in a batch lies in [true (1 - 1e-5), true (1 + 2e-3)], true being that of the plain
 * gradient of the unit alone. Where the true gradient is zero, what is left is rounding of the whole: 1e-12 of its square.
 */
export async function compareNorms<E, B extends UnitBatch>(
  t: Test,
  subject: Subject<E, B>,
  units: readonly E[],
  what = '',
): Promise<void> {
  const random = stepRandom(subject.device)
  const norms = await squaredNormsByParameter(subject, units, random)
  let checked = 0
  for (const [index, unit] of units.entries()) {
    const alone = await plainGradients(subject, [unit], random)
    const whole = [...alone.values()].reduce((sum, values) => sum + squares(values), 0)
    for (const [name, values] of alone) {
      const truth = squares(values)
      const norm = norms.get(name)![index]!
      const slack = 1e-12 * whole
      const low = truth * (1 - 1e-5) - slack
      const high = truth * (1 + 2e-3) + slack
      if (!(norm >= low && norm <= high)) t.fail(`${what} ${name} of unit ${index}: ${norm} for ${truth}`)
      checked++
    }
  }
  t.equal(checked, units.length * norms.size, `${what}: every unit and parameter`)
}
