import { UnitLayout } from '../../autograd/layout.js'
import { Tape } from '../../autograd/tape.js'
import { packBatch } from '../../data/packing.js'
import type { Device } from '../../engine/device.js'
import type { Tensor } from '../../engine/tensor.js'
import { DpMoeError, OutOfRangeError } from '../../errors.js'
import type { ForwardContext } from '../../nn/module.js'
import { Decoder } from '../decoder.js'
import { type TokenBatch, tokenBatch } from '../language-batch.js'
import type { SwitchTransformer } from '../switch-transformer.js'
import { KeyValueCache } from './key-value-cache.js'
import { checkSampling, chooseToken, type SamplingOptions, seededUniform } from './sampling.js'

/** A model that continues token sequences (Decoder), or answers them (SwitchTransformer). */
export type GenerativeModel = Decoder | SwitchTransformer

export interface GenerationOptions extends SamplingOptions {
  /** Default 64. */
  readonly maxNewTokens?: number
  /** Tokens that end a sequence; they are given out too. Default: none. */
  readonly stopTokens?: readonly number[]
  /** Of the choice of tokens. Default 0: the same prompt gives the same text. */
  readonly seed?: number
  /** Place of the first prompt among all that are asked: a prompt's choices follow from the seed and its place. Default 0. */
  readonly firstPrompt?: number
  readonly signal?: AbortSignal
}

/** @throws OutOfRangeError naming the option */
export function checkGeneration({ maxNewTokens = 64, ...sampling }: GenerationOptions): void {
  checkSampling(sampling)
  if (!(Number.isInteger(maxNewTokens) && maxNewTokens >= 1)) {
    throw new OutOfRangeError('maxNewTokens', 'an integer >= 1', maxNewTokens)
  }
}

/** A token of one of the prompts' continuations. */
export interface GeneratedToken {
  /** Place of the prompt. */
  readonly prompt: number
  readonly token: number
  /** Whether this is the last token of its sequence. */
  readonly last: boolean
}

/**
 * Continues prompts token by token, all of them at once, each as if it were alone. Every step reads one token a sequence: what
 * was read before is kept (`KeyValueCache`).
 *
 * @param prompts token ids; a Decoder needs at least one each, for a SwitchTransformer they are the encoder's text
 * @throws OutOfRangeError, DpMoeError INVALID_ARGUMENT for options or prompts; ABORTED by `signal`
 */
export async function* generateTokens(
  model: GenerativeModel,
  prompts: readonly Int32Array[],
  options: GenerationOptions = {},
): AsyncGenerator<GeneratedToken> {
  const { maxNewTokens = 64, stopTokens = [], seed = 0, firstPrompt = 0, signal } = options
  checkGeneration(options)
  if (prompts.length === 0) return
  // A sequence's choices do not depend on the others'.
  const uniforms = prompts.map((_, prompt) => seededUniform(seed + Math.imul(0x9e3779b9, firstPrompt + prompt)))
  using reader = model instanceof Decoder ? new DecoderReader(model, prompts) : new Seq2SeqReader(model, prompts)
  const done = new Array<boolean>(prompts.length).fill(false)
  let next: Int32Array | undefined
  for (let step = 0; step < maxNewTokens && done.includes(false); step++) {
    if (signal?.aborted) throw new DpMoeError('ABORTED', `Stopped after ${step} tokens`, { cause: signal.reason })
    const scores = await reader.read(next)
    const vocabulary = scores.length / prompts.length
    next = Int32Array.from(prompts, (_, prompt) =>
      chooseToken(scores.subarray(prompt * vocabulary, (prompt + 1) * vocabulary), options, uniforms[prompt]!),
    )
    for (const [prompt, token] of next.entries()) {
      if (done[prompt]) continue
      const last = stopTokens.includes(token) || step === maxNewTokens - 1
      done[prompt] = last
      yield { prompt, token, last }
    }
  }
}

/** All continuations, [prompts] of token ids; stop tokens are left out. */
export async function generate(
  model: GenerativeModel,
  prompts: readonly Int32Array[],
  options: GenerationOptions = {},
): Promise<number[][]> {
  const all: number[][] = prompts.map(() => [])
  for await (const { prompt, token } of generateTokens(model, prompts, options)) {
    if (!options.stopTokens?.includes(token)) all[prompt]!.push(token)
  }
  return all
}

const evaluation = (device: Device): ForwardContext => ({ tape: new Tape(device), training: false })

/** Reads the prompts, then one token of each sequence at a time; gives the scores of the token after it. */
class DecoderReader {
  readonly #model: Decoder
  readonly #prompts: readonly Int32Array[]
  readonly #cache: KeyValueCache
  readonly #lengths: Int32Array

  constructor(model: Decoder, prompts: readonly Int32Array[]) {
    const empty = prompts.findIndex((ids) => ids.length === 0)
    if (empty >= 0) throw new DpMoeError('INVALID_ARGUMENT', `Expected at least one token in prompt ${empty}, got none`)
    this.#model = model
    this.#prompts = prompts
    this.#cache = new KeyValueCache(model.embedding.weight.device)
    this.#lengths = new Int32Array(prompts.length)
  }

  /** Scores [prompts * vocabulary]. */
  async read(tokens: Int32Array | undefined): Promise<Float32Array> {
    const { device } = this.#cache
    const scores = device.scope(() => {
      const context = evaluation(device)
      const batch = tokens ? nextRows(device, tokens, this.#lengths) : promptRows(device, this.#prompts)
      this.#cache.begin(batch.layout)
      const { y } = this.#model.forward(batch, context, this.#cache)
      for (const [prompt, length] of rowsOfUnits(batch.layout).entries()) this.#lengths[prompt]! += length
      return this.#model.scores(lastRows(y, batch.layout), context).data()
    })
    return (await scores) as Float32Array
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]()
  }
}

/** Encodes the prompts once, then decodes one token of each answer at a time. */
class Seq2SeqReader {
  readonly #model: SwitchTransformer
  readonly #cache: KeyValueCache
  readonly #source: TokenBatch
  readonly #encoded: Tensor
  readonly #lengths: Int32Array

  constructor(model: SwitchTransformer, prompts: readonly Int32Array[]) {
    const { device } = model.embedding.weight
    this.#model = model
    this.#cache = new KeyValueCache(device)
    this.#lengths = new Int32Array(prompts.length)
    this.#source = promptRows(device, prompts)
    // Made here and not inside a step's scope: every step's layout shares it.
    this.#source.layout.perSequence
    this.#encoded = device.scope(() => model.encode(this.#source, evaluation(device)).y)
  }

  async read(tokens: Int32Array | undefined): Promise<Float32Array> {
    const { device } = this.#cache
    const rows = tokens ?? new Int32Array(this.#lengths.length).fill(this.#model.config.decoderStartToken)
    const scores = device.scope(() => {
      const context = evaluation(device)
      const layout = this.#source.layout.beside(
        Int32Array.from({ length: rows.length + 1 }, (_, row) => row),
        'decoder rows',
      )
      const batch = nextRows(device, rows, this.#lengths, layout)
      this.#cache.begin(layout)
      const { y } = this.#model.decode(batch, this.#encoded, context, this.#cache)
      for (const prompt of this.#lengths.keys()) this.#lengths[prompt]!++
      return this.#model.scores(y, context).data()
    })
    return (await scores) as Float32Array
  }

  [Symbol.dispose](): void {
    this.#cache[Symbol.dispose]()
    this.#encoded[Symbol.dispose]()
  }
}

function promptRows(device: Device, prompts: readonly Int32Array[]): TokenBatch {
  return tokenBatch(device, packBatch(prompts.map((ids, unit) => ({ ids, unit }))))
}

/** One row per sequence, behind the `lengths` rows that were read of each. */
function nextRows(device: Device, tokens: Int32Array, lengths: Int32Array, layout?: UnitLayout): TokenBatch {
  const units = Int32Array.from(tokens.keys())
  const rows =
    layout ??
    new UnitLayout(
      device,
      Int32Array.from({ length: tokens.length + 1 }, (_, row) => row),
      units,
    )
  return {
    layout: rows,
    ids: device.tensor(tokens, [tokens.length], 'int32').withLayout(rows),
    positions: device.tensor(lengths, [tokens.length], 'int32').withLayout(rows),
  }
}

function rowsOfUnits({ offsets }: UnitLayout): Int32Array {
  return offsets.subarray(1).map((end, unit) => end - offsets[unit]!)
}

/** The last row of each unit, [units, d]. */
function lastRows(y: Tensor, layout: UnitLayout): Tensor {
  const { device } = layout
  const index = layout.offsets.subarray(1).map((end) => end - 1)
  const d = y.shape[1]!
  const last = device.empty([layout.units, d], { layout: layout.perUnit, dtype: y.dtype })
  device.run('gatherRows', {
    x: y,
    index: device.tensor(index, [index.length], 'int32'),
    y: last,
    rows: layout.units,
    d,
  })
  return last
}
