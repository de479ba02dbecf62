import t from 'tap'
import { Device } from '../../lib/engine/device.js'
import { accumulateGradients, sumSink, type UnitBatch } from '../../lib/nn/accumulate.js'
import { Telemetry } from '../../lib/nn/telemetry.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { architecture, architectures, type TokenUnit, tokenUnits } from '../support/architectures.js'
import { compareNorms } from '../support/brute-force-norms.js'
import { type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { difference, flat, readWeights, writeWeights } from '../support/weights.js'

// Layers that are computed once more, instead of kept: the same numbers, bit for bit.

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

type Model = Subject<TokenUnit, UnitBatch>
const units = tokenUnits([5, 9, 33, 0, 1, 64])

/** Everything that a plain and a private step over two micro-batches make. */
async function steps({ module, loss, batch }: Model) {
  const parts = [units.slice(0, 3), units.slice(3)].map((part) => () => batch(part))
  const plain = new Telemetry(device)
  const sums = await accumulateGradients(device, parts, loss, sumSink, {
    random: stepRandom(device),
    telemetry: plain,
  })
  const gradients = new Map<string, unknown>()
  for (const [name, parameter] of module.namedParameters()) {
    if (!parameter.trainable) continue
    gradients.set(name, await parameter.gradient.data())
    parameter.gradient.fill(0)
  }
  const before = await readWeights(module)
  using optimizer = new PrivateOptimizer({
    optimizer: sgd(module.parameters(), { learningRate: 1 }),
    key: seedKey(3),
    noiseMultiplier: 0,
    maxGradNorm: 0.4,
    expectedBatchSize: 1,
  })
  const privately = new Telemetry(device)
  const statistics = await optimizer.step(4, parts, loss, privately)
  const moved = flat(difference(await readWeights(module), before))
  writeWeights(module, before)
  const loads = [await plain.takeExpertLoads(), await privately.takeExpertLoads()]
  return { sums, gradients: [...gradients], statistics, moved, loads }
}

for (const name of architectures) {
  t.test(`${name}: a step with checkpoints is the step without, bit for bit`, async (t) => {
    const subject = architecture(device, name)
    const without = await steps(subject)
    t.ok(without.statistics.clippedFraction > 0.5, 'units are clipped')
    t.ok(Object.keys(without.loads[0]!).length > 0, 'loads are counted')
    subject.module.setActivationCheckpointing()
    const checkpointed = await steps(subject)
    t.strictSame(checkpointed, without)
    subject.module.setActivationCheckpointing(false)
    t.strictSame(await steps(subject), without, 'and without once more')
  })

  t.test(`${name}: norms with checkpoints beside gradients of each unit alone`, async (t) => {
    const subject = architecture(device, name)
    subject.module.setActivationCheckpointing()
    await compareNorms(t, subject, units, name)
  })
}

t.test('a unit with checkpoints has the same bits whatever the others are', async (t) => {
  const subject = architecture(device, 'switch transformer')
  subject.module.setActivationCheckpointing()
  const norms = async (units: readonly TokenUnit[], index: number) =>
    [...(await squaredNormsByParameter(subject, units, stepRandom(device)))].map(([name, values]) => [
      name,
      values[index],
    ])
  const before = await norms(units, 2)
  t.strictSame(await norms([units[2]!], 0), before, 'alone')
  t.strictSame(await norms([...tokenUnits([8, 64, 1], 9), units[2]!], 3), before, 'among others')
})

t.test('only what is trained is computed again', async (t) => {
  const subject = architecture(device, 'bert')
  const frozen = (name: string) => name.startsWith('encoder.') && !name.startsWith('encoder.layers.2')
  for (const [name, parameter] of subject.module.namedParameters()) if (frozen(name)) parameter.freeze()
  const without = await steps(subject)
  subject.module.setActivationCheckpointing()
  t.strictSame(await steps(subject), without)
})
