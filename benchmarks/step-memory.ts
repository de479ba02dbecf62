import { execFile } from 'node:child_process'
import { fileURLToPath } from 'node:url'
import { promisify } from 'node:util'
import { type EncodedUnit, packBatch, splitIntoMicroBatches } from '../lib/data/packing.js'
import { Device } from '../lib/engine/index.js'
import { BertClassifier } from '../lib/models/bert.js'
import { Decoder } from '../lib/models/decoder.js'
import { causalBatch, seq2seqBatch } from '../lib/models/language-batch.js'
import { SwitchTransformer } from '../lib/models/switch-transformer.js'
import { textBatch } from '../lib/models/text-batch.js'
import {
  accumulateGradients,
  type LossFunction,
  type MicroBatch,
  sumSink,
  type UnitBatch,
} from '../lib/nn/accumulate.js'
import { Initializer } from '../lib/nn/initializer.js'
import type { Module } from '../lib/nn/module.js'
import { sgd } from '../lib/optim/sgd.js'
import { keyTensor, seedKey } from '../lib/privacy/keys.js'
import { PrivateOptimizer } from '../lib/privacy/private-optimizer.js'

/**
 * Memory of one training step, private beside plain, each in a process of its own.
 *
 *     node --import tsx benchmarks/step-memory.ts [CASE...]
 *
 * Prints a line of JSON for each case and mode: the most bytes that tensors held at once, what weights and gradients take
 * of them, and the process's own peak.
 */

interface Case {
  readonly model: 'bert' | 'decoder' | 'switch'
  readonly examples: number
  readonly length: number
  readonly maxTokens: number
}

const cases: Readonly<Record<string, Case>> = {
  'bert 64 x 128': { model: 'bert', examples: 64, length: 128, maxTokens: 2048 },
  'bert 1024 x 8': { model: 'bert', examples: 1024, length: 8, maxTokens: 2048 },
  'decoder 64 x 32': { model: 'decoder', examples: 64, length: 32, maxTokens: 2048 },
  'decoder 1024 x 4': { model: 'decoder', examples: 1024, length: 4, maxTokens: 2048 },
  'decoder 8 x 512': { model: 'decoder', examples: 8, length: 512, maxTokens: 2048 },
  'decoder 2 x 2048': { model: 'decoder', examples: 2, length: 2048, maxTokens: 2048 },
  'switch 64 x 64': { model: 'switch', examples: 64, length: 64, maxTokens: 2048 },
  'switch 1024 x 8': { model: 'switch', examples: 1024, length: 8, maxTokens: 2048 },
}

const modes = ['plain', 'private', 'plain with checkpoints', 'private with checkpoints']

/** A model with the loss of consecutive units of a batch. */
interface Subject {
  readonly module: Module
  readonly loss: LossFunction<UnitBatch>
  make(units: readonly EncodedUnit[]): UnitBatch
}

function subjectOf<B extends UnitBatch>(
  module: Module & { loss: LossFunction<B> },
  make: (units: readonly EncodedUnit[]) => B,
): Subject {
  return { module, loss: module.loss.bind(module) as LossFunction<UnitBatch>, make }
}

function bert(device: Device): Subject {
  const model = new BertClassifier(new Initializer(device, 1), {
    vocabularySize: 30_522,
    hiddenSize: 384,
    intermediateSize: 1536,
    numLayers: 6,
    numAttentionHeads: 12,
    maxPositions: 512,
    tokenTypes: 2,
    activation: 'gelu',
    layerNormEpsilon: 1e-12,
    labels: ['a', 'b'],
    dropout: 0,
    mixture: { numExperts: 8, expertsPerToken: 1, layers: [1, 3, 5] },
  })
  return subjectOf(model, (units) => textBatch(device, packBatch(units), new Int32Array(units.length)))
}

function decoder(device: Device): Subject {
  const model = new Decoder(new Initializer(device, 1), {
    kind: 'olmoe',
    vocabularySize: 50_304,
    hiddenSize: 512,
    headSize: 64,
    numLayers: 6,
    numAttentionHeads: 8,
    numKeyValueHeads: 8,
    numExperts: 16,
    expertsPerToken: 4,
    expertSize: 256,
    denseSize: 0,
    denseLayers: [],
    normalizeGates: false,
    routerJitter: 0,
    balanceLoss: 0.01,
    activation: 'silu',
    attentionBias: false,
    clipQkv: undefined,
    normEpsilon: 1e-5,
    ropeTheta: 10_000,
    ropeFactor: 1,
    tiedHead: false,
  })
  return subjectOf(model, (units) => causalBatch(device, packBatch(units)))
}

function switchTransformer(device: Device): Subject {
  const model = new SwitchTransformer(new Initializer(device, 1), {
    vocabularySize: 32_128,
    hiddenSize: 512,
    headSize: 64,
    numAttentionHeads: 8,
    intermediateSize: 1024,
    numLayers: 4,
    numDecoderLayers: 4,
    sparseStep: 2,
    decoderSparseStep: 2,
    numExperts: 8,
    capacityPerSequence: 0,
    routerBias: false,
    routerJitter: 0.01,
    activation: 'relu',
    normEpsilon: 1e-6,
    relativeBuckets: 32,
    relativeMaxDistance: 128,
    tiedHead: true,
    balanceLoss: 0.01,
    zLoss: 0,
    dropout: 0.1,
    decoderStartToken: 0,
  })
  return subjectOf(model, (units) => {
    const half = units.map((unit) => ({ ...unit, ids: unit.ids.subarray(0, Math.ceil(unit.ids.length / 2)) }))
    return seq2seqBatch(device, packBatch(half), packBatch(half), 0)
  })
}

const makers = { bert, decoder, switch: switchTransformer }

function examples({ examples: count, length }: Case): EncodedUnit[] {
  let state = 1
  const next = () => {
    state = (Math.imul(state, 1664525) + 1013904223) >>> 0
    return state % 30_000
  }
  return Array.from({ length: count }, (_, unit) => ({ unit, ids: Int32Array.from({ length }, next) }))
}

async function measure(name: string, mode: string): Promise<void> {
  const chosen = cases[name]!
  using device = Device.open('cpu', { threads: 2 })
  const { module, loss, make } = makers[chosen.model](device)
  module.setActivationCheckpointing(mode.endsWith('checkpoints'))
  for (const parameter of module.trainableParameters()) parameter.gradient.fill(0)
  await device.synchronize()
  const state = device.memory().live
  const units = examples(chosen)
  const microBatches: MicroBatch<UnitBatch>[] = splitIntoMicroBatches(
    units.map(({ ids }) => ids.length),
    chosen.maxTokens,
  ).map(
    ({ start, end }) =>
      () =>
        make(units.slice(start, end)),
  )
  const optimizer = sgd(module.parameters(), { learningRate: 1e-3 })
  const key = seedKey(1)
  const started = performance.now()
  if (mode.startsWith('private')) {
    const options = { optimizer, key, noiseMultiplier: 1, maxGradNorm: 1, expectedBatchSize: units.length }
    await new PrivateOptimizer(options).step(0, microBatches, loss)
  } else {
    const random = { key: keyTensor(device, key), step: 0 }
    await accumulateGradients(device, microBatches, loss, sumSink, { random })
    device.scope(() => optimizer.update({ step: 0, divisor: units.length }))
  }
  await device.synchronize()
  const seconds = (performance.now() - started) / 1000
  const mebibytes = (bytes: number) => Math.round(bytes / 2 ** 20)
  const { peak } = device.memory()
  console.log(
    JSON.stringify({
      what: 'memory of a step',
      case: name,
      mode,
      microBatches: microBatches.length,
      maxTokens: chosen.maxTokens,
      weightsAndGradientsMib: mebibytes(state),
      peakMib: mebibytes(peak),
      processMib: Math.round(process.resourceUsage().maxRSS / 1024),
      seconds: Number(seconds.toFixed(1)),
    }),
  )
}

const [first, ...rest] = process.argv.slice(2)
if (first === '--one') {
  await measure(rest[0]!, rest[1]!)
} else {
  const run = promisify(execFile)
  const names = first === undefined ? Object.keys(cases) : [first, ...rest]
  for (const name of names) {
    for (const mode of modes) {
      const args = ['--import', 'tsx', fileURLToPath(import.meta.url), '--one', name, mode]
      const { stdout } = await run(process.execPath, args)
      process.stdout.write(stdout)
    }
  }
}
