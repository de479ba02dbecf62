import { join } from 'node:path'
import { fileURLToPath } from 'node:url'
import t from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { type Example, HuggingFaceTokenizer } from '../../lib/data/index.js'
import { Device } from '../../lib/engine/device.js'
import { Decoder } from '../../lib/models/decoder.js'
import type { GenerativeModel } from '../../lib/models/generation/generate.js'
import { SwitchTransformer } from '../../lib/models/switch-transformer.js'
import { sgd } from '../../lib/optim/sgd.js'
import { seedKey } from '../../lib/privacy/keys.js'
import { PrivateOptimizer } from '../../lib/privacy/private-optimizer.js'
import { evaluateLanguageModel } from '../../lib/train/evaluate-language.js'
import {
  encodeCausal,
  encodeSeq2Seq,
  type LanguageBatch,
  type LanguageData,
  languageBatch,
} from '../../lib/train/language-data.js'
import { LanguageEncoder } from '../../lib/train/language-encoder.js'
import { lossOf } from '../../lib/train/task.js'
import { plainGradients, rowsOfUnit, type Subject, squaredNormsByParameter, stepRandom } from '../support/sites.js'
import { difference, readWeights, writeWeights } from '../support/weights.js'
import { END, tinyTokenizer } from '../train/support/language.js'

// What training makes of examples of the language tasks, held to each example alone and to sums written out in float64.

const fixtures = fileURLToPath(new URL('../parity/fixtures/', import.meta.url))
const device = Device.open('cpu', { threads: 1 })
t.teardown(() => device[Symbol.dispose]())
const random = stepRandom(device)

const examples: Example[] = [
  { text: 'the film', target: 'good' },
  { text: 'hello world the good film', target: "the world's film" },
  { text: 'a '.repeat(30), target: 'cut away' },
  { text: '', target: 'hello' },
  { text: 'is it?', target: '' },
  { text: 'hello', target: 'the good good good world!' },
].map((example, index) => ({ ...example, line: index + 1 }))

interface Case {
  readonly model: GenerativeModel
  readonly data: LanguageData
  /** The same with everything but the text and target of example 1 changed. */
  readonly others: LanguageData
}

const cases: Record<string, () => Promise<Case>> = {
  'causal-lm': async () => {
    const encoder = encoderOf(false)
    const model = await Decoder.fromPretrained(device, join(fixtures, 'mixtral'), { balanceLoss: 0.2 })
    return { model, data: await encodeCausal(examples, encoder), others: await encodeCausal(changed(), encoder) }
  },
  'causal-lm, whole texts': async () => {
    const encoder = encoderOf(false)
    const model = await Decoder.fromPretrained(device, join(fixtures, 'qwen3-moe-every-second'), { balanceLoss: 0.2 })
    const whole = (all: Example[]) => all.map(({ text, line }) => ({ text, line }))
    return {
      model,
      data: await encodeCausal(whole(examples), encoder),
      others: await encodeCausal(whole(changed()), encoder),
    }
  },
  seq2seq: async () => {
    const encoder = encoderOf(true)
    const model = await SwitchTransformer.fromPretrained(device, join(fixtures, 'switch-capacity-untied'))
    return { model, data: await encodeSeq2Seq(examples, encoder), others: await encodeSeq2Seq(changed(), encoder) }
  },
}

function encoderOf(template: boolean): LanguageEncoder {
  return new LanguageEncoder(new HuggingFaceTokenizer(tinyTokenizer({ template }), { maxLength: 24 }), [END])
}

function changed(): Example[] {
  return examples.map((example, index) =>
    index === 1 ? example : { text: `${example.text} the film`, target: 'a b c', line: index + 1 },
  )
}

const squared = (values: Float64Array) => values.reduce((total, value) => total + value * value, 0)
const sum = (values: Iterable<number>) => [...values].reduce((total, value) => total + value, 0)
const units = [0, 1, 2, 3, 4, 5]

for (const [name, make] of Object.entries(cases)) {
  t.test(name, async (t) => {
    const { model, data, others } = await make()
    const subjectOf = (data: LanguageData): Subject<number, LanguageBatch> => ({
      device,
      module: model,
      loss: lossOf,
      batch: (units) => languageBatch(device, model, data, units),
    })
    const subject = subjectOf(data)
    const alone: Map<string, Float64Array>[] = []
    for (const unit of units) alone.push(await plainGradients(subject, [unit], random))
    const whole = alone.map((gradients) => Math.sqrt(sum([...gradients.values()].map(squared))))
    const untaught = units.filter((unit) => data.lengthsOf([unit])[0] === 0)

    await t.test('norms of examples are those of each alone; one without a token to learn has none', async (t) => {
      const norms = await squaredNormsByParameter(subject, units, random)
      for (const [parameter, values] of norms) {
        for (const [unit, value] of values.entries()) {
          const expected = squared(alone[unit]!.get(parameter)!)
          t.ok(
            Math.abs(value - expected) <= 3e-3 * expected + 1e-9,
            `${parameter} of ${unit}: ${value}, not ${expected}`,
          )
        }
      }
      t.equal(untaught.length, data.untaught)
      t.strictSame(
        whole.map((norm) => norm > 0),
        units.map((unit) => !untaught.includes(unit)),
      )
    })

    await t.test(
      'a private step without noise takes the sum of gradients that are clipped one at a time',
      async (t) => {
        const bound = [...whole].filter((norm) => norm > 0).sort((a, b) => a - b)[1]!
        const before = await readWeights(model)
        {
          using optimizer = new PrivateOptimizer({
            optimizer: sgd(model.parameters(), { learningRate: 1 }),
            key: seedKey('sites'), // as `random`, which jitter is drawn from
            noiseMultiplier: 0,
            maxGradNorm: bound,
            expectedBatchSize: 1,
          })
          const parts = [units.slice(0, 2), units.slice(2)]
          const batches = parts.map((part) => () => languageBatch(device, model, data, part))
          await optimizer.step(random.step, batches, lossOf)
        }
        const moved = difference(before, await readWeights(model))
        writeWeights(model, before)
        let off = 0
        let size = 0
        for (const [parameter, values] of moved) {
          values.forEach((value, i) => {
            const clipped = whole.map((norm, unit) =>
              norm === 0 ? 0 : Math.min(1, (bound * (1 - 2 ** -10)) / norm) * alone[unit]!.get(parameter)![i]!,
            )
            off += (value - sum(clipped)) ** 2
            size += sum(clipped) ** 2
          })
        }
        t.ok(size > 0)
        t.ok(Math.sqrt(off / size) < 2e-3, `off by ${Math.sqrt(off / size)}`)
      },
    )

    await t.test('an example hands over the same bits whatever the others are', async (t) => {
      const first = await rowsOfUnit(subject, units, 1, random)
      t.strictSame(await rowsOfUnit(subject, [1], 0, random), first)
      t.strictSame(await rowsOfUnit(subjectOf(others), [4, 3, 1, 5, 0], 2, random), first)
    })

    await t.test('losses and perplexity are those of the scores, in float64', async (t) => {
      const { scores, losses } = await device.scopeAsync(async () => {
        const context = { tape: new Tape(device), training: false }
        const batch = languageBatch(device, model, data, units)
        // Without a sink there is no router loss.
        const [scores, losses] = [batch.logits(context).data(), batch.loss(context).data()]
        return { scores: await scores, losses: await losses }
      })
      const vocabulary = model.config.vocabularySize
      const written = writtenOf(data)
      let [row, total, tokens, correct] = [0, 0, 0, 0]
      for (const unit of units) {
        let ofUnit = 0
        for (const target of written[unit]!) {
          const own = Array.from(scores.subarray(row * vocabulary, ++row * vocabulary))
          if (target === undefined) continue
          const largest = Math.max(...own)
          ofUnit += Math.log(sum(own.map((score) => Math.exp(score - largest)))) + largest - own[target]!
          if (own.indexOf(largest) === target) correct++
        }
        const count = written[unit]!.filter((target) => target !== undefined).length
        const mean = count === 0 ? 0 : ofUnit / count
        t.ok(Math.abs(losses[unit]! - mean) <= 1e-5 * mean, `example ${unit}: ${losses[unit]}, not ${mean}`)
        total += ofUnit
        tokens += count
      }
      t.equal(row * vocabulary, scores.length)
      for (const maxRows of [1, 1e6]) {
        const result = await evaluateLanguageModel(device, model, data, { maxRows })
        t.match(result, { examples: 6, tokens, accuracy: correct / tokens })
        t.ok(Math.abs(result.loss - total / tokens) < 1e-5 * result.loss, `${result.loss}, not ${total / tokens}`)
        t.ok(Math.abs(result.perplexity! / Math.exp(total / tokens) - 1) < 1e-5)
      }
    })
    model[Symbol.dispose]()
  })
}

/** What each row of an example is to write: of a prompt's rows only the last writes, of a completion's all but the last. */
function writtenOf({ inputs, targets }: LanguageData): (number | undefined)[][] {
  return units.map((unit) => {
    if (targets) return [...targets.unit(unit).ids]
    const ids = [...inputs.unit(unit).ids]
    const given = inputs.labels[unit]!
    return ids.map((_, row) => (row + 1 < ids.length && row + 1 >= given ? ids[row + 1] : undefined))
  })
}
