import assert from 'node:assert/strict'
import * as fc from 'fast-check'
import t from 'tap'
import { Tape } from '../../lib/autograd/tape.js'
import { packBatch } from '../../lib/data/packing.js'
import { Device } from '../../lib/engine/device.js'
import { Decoder } from '../../lib/models/decoder.js'
import type { DecoderKind } from '../../lib/models/decoder-kinds.js'
import { chooseToken, type GenerativeModel, generate, generateTokens } from '../../lib/models/generation/index.js'
import { causalBatch, seq2seqBatch, tokenBatch } from '../../lib/models/language-batch.js'
import { SwitchTransformer } from '../../lib/models/switch-transformer.js'
import { Initializer } from '../../lib/nn/initializer.js'

const device = Device.open('cpu', { threads: 2 })
t.teardown(() => device[Symbol.dispose]())

const VOCABULARY = 29
const prompts = [[3, 7, 1], [5], [2, 2, 9, 11, 4, 8, 1]].map((ids) => Int32Array.from(ids))

function decoderOf(kind: DecoderKind): Decoder {
  return new Decoder(new Initializer(device, 4), {
    kind,
    vocabularySize: VOCABULARY,
    hiddenSize: 16,
    numLayers: 2,
    numAttentionHeads: 4,
    numKeyValueHeads: 2,
    headSize: 4,
    attentionBias: false,
    clipQkv: undefined,
    activation: 'silu',
    normEpsilon: 1e-5,
    ropeTheta: 10000,
    ropeFactor: 1,
    numExperts: 4,
    expertsPerToken: 2,
    expertSize: 12,
    normalizeGates: true,
    routerJitter: 0,
    denseSize: 20,
    denseLayers: kind === 'qwen3_moe' ? [0] : [],
    tiedHead: kind === 'olmoe',
    balanceLoss: 0,
  })
}

function switchOf(): SwitchTransformer {
  return new SwitchTransformer(new Initializer(device, 5), {
    vocabularySize: VOCABULARY,
    hiddenSize: 16,
    headSize: 4,
    numAttentionHeads: 4,
    intermediateSize: 20,
    numLayers: 2,
    numDecoderLayers: 2,
    sparseStep: 2,
    decoderSparseStep: 2,
    numExperts: 4,
    capacityPerSequence: 0,
    routerBias: false,
    routerJitter: 0,
    activation: 'relu',
    normEpsilon: 1e-6,
    relativeBuckets: 8,
    relativeMaxDistance: 16,
    tiedHead: true,
    balanceLoss: 0,
    zLoss: 0,
    dropout: 0,
    decoderStartToken: 0,
  })
}

/** Scores of the next token, from all tokens read anew: [vocabulary] of the last row. */
async function scoresOf(model: GenerativeModel, prompt: Int32Array, made: number[]): Promise<Float32Array> {
  const pack = (ids: number[]) => packBatch([{ ids: Int32Array.from(ids), unit: 0 }])
  const all = (await device.scope(() => {
    const context = { tape: new Tape(device), training: false }
    if (model instanceof Decoder) return model.logits(tokenBatch(device, pack([...prompt, ...made])), context).data()
    const batch = seq2seqBatch(device, pack([...prompt]), pack([...made, 1]), 0)
    return model.logits(batch, context).data()
  })) as Float32Array
  return all.slice(-VOCABULARY)
}

const models: Record<string, () => GenerativeModel> = {
  mixtral: () => decoderOf('mixtral'),
  olmoe: () => decoderOf('olmoe'),
  qwen3_moe: () => decoderOf('qwen3_moe'),
  switch: switchOf,
}

for (const [name, make] of Object.entries(models)) {
  t.test(`${name}: with a cache, and many prompts at once, as one after another without`, async (t) => {
    const model = make()
    const made = await generate(model, prompts, { maxNewTokens: 8 })
    for (const [i, prompt] of prompts.entries()) {
      t.equal(made[i]!.length, 8)
      for (const [step, token] of made[i]!.entries()) {
        const scores = await scoresOf(model, prompt, made[i]!.slice(0, step))
        const best = scores.reduce((most, score) => Math.max(most, score), -Infinity)
        t.ok(scores[token]! > best - 1e-4, `prompt ${i}, token ${step}: ${token}`)
      }
      t.same(await generate(model, [prompt], { maxNewTokens: 8 }), [made[i]], 'alone')
    }
    const before = device.memory().live
    await generate(model, prompts, { maxNewTokens: 3 })
    t.ok(device.memory().live - before < 4096, 'nothing is left behind')
  })
}

t.test('stops, streams and samples', async (t) => {
  const model = decoderOf('mixtral')
  const [first] = await generate(model, prompts.slice(0, 1), { maxNewTokens: 6 })
  const stop = first![2]!
  const events: { token: number; last: boolean }[] = []
  for await (const event of generateTokens(model, prompts.slice(0, 1), { maxNewTokens: 6, stopTokens: [stop] })) {
    events.push(event)
  }
  const at = first!.indexOf(stop)
  t.same(
    events.map(({ token }) => token),
    first!.slice(0, at + 1),
  )
  t.equal(events.at(-1)!.last, true)
  t.same(await generate(model, prompts.slice(0, 1), { maxNewTokens: 6, stopTokens: [stop] }), [first!.slice(0, at)])

  const warm = { maxNewTokens: 12, temperature: 1.5 }
  const sampled = await generate(model, prompts, { ...warm, seed: 1 })
  t.same(await generate(model, prompts, { ...warm, seed: 1 }), sampled, 'the same seed, the same text')
  t.notSame(await generate(model, prompts, { ...warm, seed: 2 }), sampled)
  t.same((await generate(model, prompts.slice(0, 1), { ...warm, seed: 1 }))[0], sampled[0])
  t.same(await generate(model, prompts, { ...warm, topK: 1 }), await generate(model, prompts, { maxNewTokens: 12 }))
  t.same(await generate(model, [], {}), [])

  await t.rejects(generate(model, [new Int32Array(0)]), /at least one token in prompt 0/)
  await t.rejects(generate(model, prompts, { maxNewTokens: 0 }), /maxNewTokens/)
  for (const options of [{ temperature: -1 }, { topK: 0 }, { topP: 0 }, { topP: 1.1 }, { temperature: Number.NaN }]) {
    await t.rejects(generate(model, prompts, options), { code: 'INVALID_ARGUMENT' }, JSON.stringify(options))
  }
  await t.rejects(generate(model, prompts, { signal: AbortSignal.abort() }), { code: 'ABORTED' })
  await t.rejects(
    generate(model, [Int32Array.of(VOCABULARY)]),
    { code: 'INVALID_ARGUMENT' },
    'a token outside the table',
  )
})

t.test('what a choice keeps', async (t) => {
  const scores = fc.array(fc.float({ noNaN: true, min: -20, max: 20 }), { minLength: 1, maxLength: 12 })
  const uniform = fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true })
  t.doesNotThrow(() =>
    fc.assert(
      fc.property(
        scores,
        fc.integer({ min: 1, max: 12 }),
        fc.double({ min: 0.05, max: 1, noNaN: true }),
        uniform,
        (values, topK, topP, u) => {
          const array = Float32Array.from(values)
          const token = chooseToken(array, { temperature: 0.7, topK, topP }, () => u)
          const ordered = [...array.keys()].sort((a, b) => array[b]! - array[a]! || a - b)
          const place = ordered.indexOf(token)
          assert.ok(place >= 0 && place < topK)
          const weights = ordered.slice(0, topK).map((one) => Math.exp((array[one]! - array[ordered[0]!]!) / 0.7))
          const all = weights.reduce((a, b) => a + b)
          const before = weights.slice(0, place).reduce((a, b) => a + b, 0)
          assert.ok(before < topP * all, 'what comes before it is not enough')
          assert.equal(
            chooseToken(array, {}, () => u),
            array.indexOf(Math.max(...array)),
          )
        },
      ),
    ),
  )
  const counts = [0, 0, 0]
  const odds = Float32Array.from([Math.log(1), Math.log(2), Math.log(5)])
  for (let i = 0; i < 8000; i++) counts[chooseToken(odds, { temperature: 1 }, () => (i + 0.5) / 8000)]!++
  t.same(counts, [1000, 2000, 5000])
  t.equal(
    chooseToken(Float32Array.of(Number.NaN, 1, Number.POSITIVE_INFINITY), {}, () => 0),
    1,
  )
  t.equal(
    chooseToken(Float32Array.of(Number.NaN), { temperature: 1 }, () => 0),
    0,
  )
})

t.test('a batch for training and one for generation are the same rows', async (t) => {
  const model = decoderOf('mixtral')
  const packed = packBatch(prompts.map((ids, unit) => ({ ids, unit })))
  const context = () => ({ tape: new Tape(device), training: false })
  const a = await device.scope(() => model.logits(causalBatch(device, packed), context()).data())
  const b = await device.scope(() => model.logits(tokenBatch(device, packed), context()).data())
  t.same(a, b)
})
