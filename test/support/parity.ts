import { readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { SumSink } from '../../lib/autograd/sinks.js'
import { Tape } from '../../lib/autograd/tape.js'
import { type EncodedUnit, packBatch } from '../../lib/data/packing.js'
import type { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import { BertClassifier } from '../../lib/models/bert.js'
import { Decoder } from '../../lib/models/decoder.js'
import type { HuggingFaceModel } from '../../lib/models/hugging-face/hugging-face-model.js'
import { causalBatch, seq2seqBatch, tokenBatch } from '../../lib/models/language-batch.js'
import { SafetensorsFile } from '../../lib/models/safetensors.js'
import { SwitchTransformer } from '../../lib/models/switch-transformer.js'
import type { UnitBatch } from '../../lib/nn/accumulate.js'
import type { ForwardContext } from '../../lib/nn/module.js'

/** A sequence of a case, as benchmarks/parity/parity.py writes it. */
export interface ParitySequence {
  readonly ids: number[]
  readonly tokenTypes?: number[]
  readonly label?: number
  readonly target?: number[]
  /** Position in a data set, which keys jitter; default that in the batch. */
  readonly unit?: number
}

export interface ParityCase {
  readonly kind: 'bert' | 'mixtral' | 'olmoe' | 'qwen3_moe' | 'switch_transformers'
  readonly routerLoss: boolean
  readonly sequences: readonly ParitySequence[]
}

/** A model with what a case runs on it. */
export interface Subject {
  readonly model: HuggingFaceModel
  logits(sequences: readonly ParitySequence[], context: ForwardContext): Tensor
  batch(sequences: readonly ParitySequence[]): UnitBatch
  loss(batch: UnitBatch, context: ForwardContext): Tensor
}

export async function readCase(folder: string): Promise<ParityCase> {
  return JSON.parse(await readFile(join(folder, 'case.json'), 'utf8')) as ParityCase
}

function packed(sequences: readonly ParitySequence[], idsOf: (sequence: ParitySequence) => readonly number[]) {
  return packBatch(
    sequences.map((sequence, index): EncodedUnit => {
      return { ids: Int32Array.from(idsOf(sequence)), unit: sequence.unit ?? index }
    }),
  )
}

function subject<M extends HuggingFaceModel, B extends UnitBatch>(
  model: M,
  batch: (sequences: readonly ParitySequence[]) => B,
  run: { logits(batch: B, context: ForwardContext): Tensor; loss(batch: B, context: ForwardContext): Tensor },
): Subject {
  return {
    model,
    batch,
    logits: (sequences, context) => run.logits(batch(sequences), context),
    loss: (any, context) => run.loss(any as B, context),
  }
}

/** Loads the model of a case. */
export async function loadSubject(device: Device, folder: string, { kind, routerLoss }: ParityCase): Promise<Subject> {
  if (kind === 'bert') {
    const model = await BertClassifier.fromPretrained(device, folder)
    return subject(
      model,
      (sequences) => {
        const tokens = tokenBatch(
          device,
          packed(sequences, ({ ids }) => ids),
        )
        const { layout } = tokens
        const int32 = (values: number[]) => device.tensor(values, [values.length], 'int32')
        return {
          ...tokens,
          weights: undefined,
          tokenTypes: int32(sequences.flatMap(({ tokenTypes }) => tokenTypes!)).withLayout(layout),
          labels: int32(sequences.map(({ label }) => label!)).withLayout(layout.perSequence),
        }
      },
      model,
    )
  }
  if (kind === 'switch_transformers') {
    const losses = routerLoss ? {} : { balanceLoss: 0, zLoss: 0 }
    const model = await SwitchTransformer.fromPretrained(device, folder, losses)
    const start = model.config.decoderStartToken
    return subject(
      model,
      (sequences) => {
        const source = packed(sequences, ({ ids }) => ids)
        return seq2seqBatch(
          device,
          source,
          packed(sequences, ({ target }) => target!),
          start,
        )
      },
      model,
    )
  }
  const model = await Decoder.fromPretrained(device, folder)
  return subject(
    model,
    (sequences) =>
      causalBatch(
        device,
        packed(sequences, ({ ids }) => ids),
      ),
    model,
  )
}

/** What transformers computed. */
export async function readExpected(folder: string): Promise<Map<string, Float32Array>> {
  await using file = await SafetensorsFile.open(join(folder, 'expected.safetensors'))
  const tensors = new Map<string, Float32Array>()
  for (const name of file.tensors.keys()) tensors.set(name, await file.readFloat32(name))
  return tensors
}

/** Logits, losses and gradients of a case here. */
export async function compute(device: Device, { model, logits, batch, loss }: Subject, { sequences }: ParityCase) {
  const values = (tensor: Tensor) => tensor.data() as Promise<Float32Array>
  const evaluation = device.scope(() => logits(sequences, { tape: new Tape(device), training: false }))
  const losses = device.scope(() => {
    const tape = new Tape(device, new SumSink())
    const perUnit = loss(batch(sequences), { tape, training: false })
    tape.backward(perUnit)
    return perUnit
  })
  const result = new Map([
    ['logits', await values(evaluation)],
    ['losses', await values(losses)],
  ])
  for (const [name, { parameter, offset, shape }] of model.tensorMap().tensors) {
    const size = shape.reduce((product, extent) => product * extent, 1)
    result.set(`gradient:${name}`, await values(parameter.gradient.slice(offset, size)))
  }
  for (const parameter of model.parameters()) parameter.gradient.fill(0)
  return result
}

const isGradient = (key: string) => key.startsWith('gradient:')

const norm = (values: Float32Array) => Math.sqrt(values.reduce((sum, value) => sum + value * value, 0))

/**
 * What differs, as text: values off by more than 1e-4 (gradients 1e-3) of their norm. A gradient that is zero but for
 * rounding (a key's bias moves no softmax) is held to 1e-6 of the norm of the whole gradient.
 */
export function differences(actual: Map<string, Float32Array>, expected: Map<string, Float32Array>): string[] {
  let whole = 0
  for (const [key, values] of expected) if (isGradient(key)) whole += norm(values) ** 2
  return [...expected].flatMap(([key, values]) => {
    const found = actual.get(key)
    if (found?.length !== values.length) return [`${key}: ${found?.length ?? 'no'} values, expected ${values.length}`]
    const off = norm(found.map((value, i) => value - values[i]!))
    const limit = isGradient(key) ? 1e-3 * norm(values) + 1e-6 * Math.sqrt(whole) : 1e-4 * norm(values)
    return off <= limit ? [] : [`${key}: off by ${off} of ${norm(values)}`]
  })
}
