import { mkdir, readFile } from 'node:fs/promises'
import { join } from 'node:path'
import { z } from 'zod'
import type { BagOptions } from '../data/bag.js'
import { HuggingFaceTokenizer, type Tokenizer, type TokenizerConfig, tokenizerFromJson } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { replaceFile, withFileErrors } from '../files.js'
import { openAdapted } from './adapted-model.js'
import { holdsAdapters } from './hugging-face/adapter-config.js'
import { exists, readJsonObject } from './hugging-face/checkpoint.js'
import { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { readModelTask } from './open-model.js'
import { readPretrainedShape } from './pretrained-shape.js'
import { openPretrainedClassifier, type PretrainedTextClassifier } from './pretrained-text-classifier.js'
import { SafetensorsFile, type TensorSource, writeSafetensors } from './safetensors.js'
import {
  type ClassifierConfig,
  createClassifier,
  parseClassifierConfig,
  type TextClassifier,
} from './text-classifier.js'

const weightsFile = 'model.safetensors'
const configFile = 'config.json'

const configSchema = z.object({
  format: z.literal('dp-moe-model-1'),
  model: z.unknown(),
  labels: z
    .array(z.string())
    .min(2)
    .refine((labels) => new Set(labels).size === labels.length, 'a label is there twice'),
  tokenizer: z.looseObject({ type: z.string() }),
  bag: z.object({ weighting: z.enum(['count', 'log', 'binary']), normalise: z.boolean() }).nullable(),
})

/** A classifier with all that turns a text into its answer. */
export interface PretrainedClassifier {
  readonly model: TextClassifier
  /** Undefined for a model in the Hugging Face layout, which has its own config.json. */
  readonly config: ClassifierConfig | undefined
  /** Class names in the order of the scores. */
  readonly labels: readonly string[]
  readonly tokenizer: Tokenizer
  /** How token ids become weighted bags; undefined where the model reads sequences. */
  readonly bag: BagOptions | undefined
}

/**
 * Writes config.json and model.safetensors into a folder, each atomically.
 *
 * @throws DpMoeError DISK_FULL, FILE_ACCESS
 */
export async function savePretrained(
  folder: string,
  { model, config, labels, tokenizer, bag }: PretrainedClassifier,
): Promise<void> {
  if (model instanceof HuggingFaceModel) {
    if (!(tokenizer instanceof HuggingFaceTokenizer)) {
      throw new DpMoeError('INVALID_ARGUMENT', 'Expected a Hugging Face tokenizer with a pretrained model')
    }
    await model.savePretrained(folder, { tokenizer })
    return
  }
  await withFileErrors('create', folder, () => mkdir(folder, { recursive: true }))
  const tensors = new Map<string, TensorSource>()
  for (const [name, parameter] of model.namedParameters()) {
    const data = async () => (await parameter.tensor.data()) as Float32Array
    tensors.set(name, { dtype: 'F32', shape: parameter.shape, data })
  }
  await writeSafetensors(join(folder, weightsFile), tensors)
  const content = {
    format: 'dp-moe-model-1',
    model: config,
    labels,
    tokenizer: tokenizer.toJSON(),
    bag: bag ? { weighting: bag.weighting ?? 'log', normalise: bag.normalise ?? true } : null,
  }
  await replaceFile(join(folder, configFile), `${JSON.stringify(content, null, 2)}\n`)
}

/**
 * Reads what `savePretrained` wrote.
 *
 * @throws DpMoeError MODEL_FORMAT for a damaged or foreign file, naming the tensor and both shapes where one does not fit;
 *   FILE_NOT_FOUND, FILE_ACCESS
 */
export async function fromPretrained(device: Device, folder: string): Promise<PretrainedClassifier> {
  const path = join(folder, configFile)
  const text = await withFileErrors('read', path, () => readFile(path, 'utf8'))
  const pretrained = await openHuggingFace(device, folder, text)
  if (pretrained) return pretrained
  const content = parseConfig(path, text)
  const config = parseClassifierConfig(content.model, path)
  if (content.labels.length !== config.numLabels) {
    throw new DpMoeError('MODEL_FORMAT', `${path}: expected ${config.numLabels} labels, got ${content.labels.length}`)
  }
  const tokenizer = tokenizerFromJson(content.tokenizer as unknown as TokenizerConfig)
  await using file = await SafetensorsFile.open(join(folder, weightsFile))
  requireSize(config, file, path)
  const model = createClassifier(device, config)
  try {
    await readWeights(model, file)
  } catch (error) {
    model[Symbol.dispose]()
    throw error
  }
  return { model, config, labels: content.labels, tokenizer, bag: content.bag ?? undefined }
}

/** A classifier in the Hugging Face layout; undefined where config.json is of this library's own. */
async function openHuggingFace(
  device: Device,
  folder: string,
  text: string,
): Promise<PretrainedClassifier | undefined> {
  if (!/"model_type"\s*:/.test(text) || /"format"\s*:\s*"dp-moe-model/.test(text)) return undefined
  const task = await readModelTask(folder)
  if (task !== undefined && task !== 'classification') {
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${join(folder, configFile)}: a language model (${task}) gives no classes; have it write texts with dp-moe generate`,
    )
  }
  const { kind, maxPositions } = await readPretrainedShape(folder, 'classification')
  const model = (await holdsAdapters(folder))
    ? ((await openAdapted(device, folder)).model as PretrainedTextClassifier)
    : await openPretrainedClassifier(device, folder, kind)
  try {
    const maxLength = await lengthOfTokenizer(folder, maxPositions ?? 512)
    const tokenizer = await HuggingFaceTokenizer.fromFile(folder, { maxLength })
    return { model, config: undefined, labels: model.labels, tokenizer, bag: undefined }
  } catch (error) {
    model[Symbol.dispose]()
    throw error
  }
}

/** The longest text of a model, as tokenizer_config.json states it; some state a number beyond all bounds. */
export async function lengthOfTokenizer(folder: string, longest: number): Promise<number> {
  const path = join(folder, 'tokenizer_config.json')
  const config = (await exists(path)) ? await readJsonObject(path) : {}
  const stated = z.int().positive().safeParse(config.model_max_length)
  return stated.success ? Math.min(stated.data, longest) : longest
}

function parseConfig(path: string, text: string): z.infer<typeof configSchema> {
  let value: unknown
  try {
    value = JSON.parse(text)
  } catch (error) {
    throw new DpMoeError('MODEL_FORMAT', `${path} is not JSON. Restore it from where the model came from`, {
      cause: error,
    })
  }
  const parsed = configSchema.safeParse(value)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new DpMoeError(
    'MODEL_FORMAT',
    `${path} is not the config.json of a dp-moe model: ${issue.path.join('.') || 'content'}: ${issue.message}`,
  )
}

/** Refuses a configuration of a much larger model than the weights before anything of it is made. */
function requireSize(config: ClassifierConfig, { tensors, path }: SafetensorsFile, configPath: string): void {
  let held = 0
  for (const { shape } of tensors.values()) held += shape.reduce((product, extent) => product * extent, 1)
  const least = leastWeights(config)
  if (least <= held) return
  throw new DpMoeError(
    'MODEL_FORMAT',
    `${configPath} describes a model of at least ${least} weights, and ${path} holds ${held}`,
  )
}

/** A lower bound on the number of a model's weights, from its matrices alone. */
function leastWeights(config: ClassifierConfig): number {
  const { vocabularySize, hiddenSize, numExperts, numLabels } = config
  if (config.modelType === 'mixture-classifier') return hiddenSize * (vocabularySize + numExperts * numLabels)
  const { numLayers, intermediateSize, maxPositions, sparseEvery } = config
  const sparse = sparseEvery > 0 ? Math.floor(numLayers / sparseEvery) : 0
  const forward = (numLayers - sparse + sparse * numExperts) * intermediateSize
  return hiddenSize * (vocabularySize + maxPositions + numLayers * hiddenSize + forward)
}

async function readWeights(model: TextClassifier, file: SafetensorsFile): Promise<void> {
  const { path } = file
  const parameters = model.namedParameters()
  for (const name of file.tensors.keys()) {
    if (!parameters.has(name)) throw new DpMoeError('MODEL_FORMAT', `${path}: unexpected tensor ${name}`)
  }
  for (const [name, parameter] of parameters) {
    const entry = file.tensors.get(name)
    const expected = `[${parameter.shape.join(', ')}]`
    if (!entry) throw new DpMoeError('MODEL_FORMAT', `${path}: tensor ${name} ${expected} is missing`)
    if (`[${entry.shape.join(', ')}]` !== expected) {
      throw new DpMoeError('MODEL_FORMAT', `${path}: expected ${name} ${expected}, got [${entry.shape.join(', ')}]`)
    }
    parameter.tensor.write(await file.readWeights(name))
  }
}
