import { join } from 'node:path'
import { z } from 'zod'
import { HuggingFaceTokenizer } from '../../data/hugging-face-tokenizer.js'
import { IncrementalDecoder } from '../../data/incremental-decoder.js'
import type { Device } from '../../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../../errors.js'
import { Decoder } from '../decoder.js'
import { configFile, exists, readJsonObject } from '../hugging-face/checkpoint.js'
import { openLanguageModel, requireLanguageModel } from '../open-language-model.js'
import { type GenerationOptions, type GenerativeModel, generateTokens } from './generate.js'
import { StopText } from './stop-text.js'

export interface TextGenerationOptions extends GenerationOptions {
  /** Ends a text; it is not part of it. Default: only stop tokens and maxNewTokens do. */
  readonly stop?: string | undefined
}

/** A piece of one of the prompts' continuations. */
export interface GeneratedText {
  /** Place of the prompt. */
  readonly prompt: number
  /** Whole characters. */
  readonly text: string
  /** Whether this is the last piece of its text. */
  readonly last: boolean
}

const MOST_TOKENS = 2 ** 20

/** A language model with its tokenizer: texts to texts. */
export class TextGenerator implements Disposable {
  readonly model: GenerativeModel
  readonly tokenizer: HuggingFaceTokenizer
  /** Tokens that end a text: eos_token_id of generation_config.json, else of config.json. */
  readonly stopTokens: readonly number[]
  /** Most tokens of a prompt and its continuation; undefined where there is no limit. */
  readonly maxPositions: number | undefined

  private constructor(model: GenerativeModel, tokenizer: HuggingFaceTokenizer, settings: GenerationSettings) {
    this.model = model
    this.tokenizer = tokenizer
    this.stopTokens = settings.stopTokens
    this.maxPositions = settings.maxPositions
  }

  /**
   * Opens a folder in the Hugging Face layout: Mixtral, OLMoE, Qwen3-MoE or Switch Transformer, with its tokenizer.
   *
   * @throws DpMoeError MODEL_FORMAT, FILE_NOT_FOUND
   */
  static async open(device: Device, folder: string): Promise<TextGenerator> {
    await requireLanguageModel(folder)
    const settings = await readGenerationSettings(folder)
    const tokenizer = await HuggingFaceTokenizer.fromFile(folder, { maxLength: MOST_TOKENS })
    const model = await openLanguageModel(device, folder)
    const { vocabularySize } = model.config
    if (tokenizer.vocabularySize <= vocabularySize) return new TextGenerator(model, tokenizer, settings)
    model[Symbol.dispose]()
    const message = `the tokenizer has ${tokenizer.vocabularySize} tokens and the model ${vocabularySize}; do they belong together?`
    throw new DpMoeError('MODEL_FORMAT', `${folder}: ${message}`)
  }

  /**
   * Token ids of a prompt.
   *
   * @throws DpMoeError INVALID_ARGUMENT for an empty one, or where the model has fewer positions than it and `maxNewTokens` take
   */
  encode(prompt: string, maxNewTokens = 64): Int32Array {
    const ids = this.tokenizer.encode(prompt)
    if (prompt === '' || ids.length === 0) {
      throw new DpMoeError('INVALID_ARGUMENT', 'Expected a prompt that is not empty')
    }
    if (this.model instanceof Decoder && ids.length + maxNewTokens > (this.maxPositions ?? Number.POSITIVE_INFINITY)) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `Expected a prompt that leaves room for ${maxNewTokens} new tokens in the ${this.maxPositions} positions of the ` +
          `model, got one of ${ids.length} tokens`,
      )
    }
    return ids
  }

  /** The continuations of prompts (a SwitchTransformer's answers), piece by piece as they come, all of them at once. */
  async *stream(prompts: readonly string[], options: TextGenerationOptions = {}): AsyncGenerator<GeneratedText> {
    const { stop, stopTokens = this.stopTokens, maxNewTokens } = options
    if (stop === '') throw new OutOfRangeError('stop', 'a text that is not empty', stop)
    const ids = prompts.map((prompt) => this.encode(prompt, maxNewTokens))
    const before = (prompt: number) => (this.model instanceof Decoder ? ids[prompt] : [])
    const texts = ids.map((_, prompt) => ({
      decoder: new IncrementalDecoder(this.tokenizer, before(prompt)),
      until: new StopText(stop),
    }))
    let open = texts.length
    for await (const { prompt, token, last } of generateTokens(this.model, ids, { ...options, stopTokens })) {
      const { decoder, until } = texts[prompt]!
      if (until.found) continue
      let text = stopTokens.includes(token) ? '' : until.push(decoder.push(token))
      if (last && !until.found) text += until.push(decoder.end()) + until.end()
      const ended = last || until.found
      if (text !== '' || ended) yield { prompt, text, last: ended }
      if (ended && --open === 0) return
    }
  }

  /** The whole continuations, in order. */
  async generate(prompts: readonly string[], options: TextGenerationOptions = {}): Promise<string[]> {
    const texts = prompts.map(() => '')
    for await (const { prompt, text } of this.stream(prompts, options)) texts[prompt] += text
    return texts
  }

  [Symbol.dispose](): void {
    this.model[Symbol.dispose]()
  }
}

/** What a model folder says about generation. */
export interface GenerationSettings {
  readonly stopTokens: readonly number[]
  readonly maxPositions: number | undefined
}

const token = z.int('expected token ids').nonnegative()
const settingsSchema = z.looseObject({
  eos_token_id: z.union([token, z.array(token)], 'expected a token id or a list of them').nullish(),
  max_position_embeddings: z.int().positive().nullish(),
})

/** How the model of a folder ends its texts, and the positions it has: from generation_config.json and config.json. */
export async function readGenerationSettings(folder: string): Promise<GenerationSettings> {
  const config = await readSome(join(folder, configFile))
  const generation = join(folder, 'generation_config.json')
  const own = (await exists(generation)) ? await readSome(generation) : {}
  const end = own.eos_token_id ?? config.eos_token_id ?? []
  return { stopTokens: [end].flat(), maxPositions: config.max_position_embeddings ?? undefined }
}

async function readSome(path: string): Promise<z.infer<typeof settingsSchema>> {
  const parsed = settingsSchema.safeParse(await readJsonObject(path))
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new DpMoeError('MODEL_FORMAT', `${path}: ${String(issue.path[0])}: ${issue.message}`)
}
