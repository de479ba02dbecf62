import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { BertClassifier } from './bert.js'
import { Decoder } from './decoder.js'
import type { GenerativeModel } from './generation/index.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { SwitchEncoderClassifier, SwitchTransformer } from './switch-transformer.js'

interface ModelClass<M extends HuggingFaceModel> {
  /** `model_type` of config.json. */
  readonly modelTypes: readonly string[]
  /** What config.json may have in `architectures`. */
  readonly architectures: readonly string[]
  open(device: Device, folder: string, options: OpenModelOptions): Promise<M>
}

export interface OpenModelOptions {
  /** Seed of a new head's first weights. Default 0. */
  readonly seed?: number | string
}

const languageModels: readonly ModelClass<GenerativeModel>[] = [
  {
    modelTypes: ['mixtral', 'olmoe', 'qwen3_moe'],
    architectures: ['MixtralForCausalLM', 'OlmoeForCausalLM', 'Qwen3MoeForCausalLM'],
    open: (device, folder) => Decoder.fromPretrained(device, folder),
  },
  {
    modelTypes: ['switch_transformers'],
    architectures: ['SwitchTransformersForConditionalGeneration'],
    open: (device, folder) => SwitchTransformer.fromPretrained(device, folder),
  },
]

const classifiers: readonly ModelClass<HuggingFaceModel>[] = [
  {
    modelTypes: ['switch_transformers'],
    architectures: ['SwitchTransformersEncoderModel'],
    open: (device, folder, options) => SwitchEncoderClassifier.fromPretrained(device, folder, options),
  },
  {
    modelTypes: ['bert', 'bert_moe'],
    architectures: [
      'BertForSequenceClassification',
      'BertMoeForSequenceClassification',
      'BertModel',
      'BertForMaskedLM',
      'BertForPreTraining',
      'BertForNextSentencePrediction',
    ],
    open: (device, folder, options) => BertClassifier.fromPretrained(device, folder, options),
  },
]

/** The `model_type` of a folder in the Hugging Face layout. */
export async function readModelType(folder: string): Promise<string | undefined> {
  const { model_type: modelType } = await readJsonObject(join(folder, configFile))
  return typeof modelType === 'string' ? modelType : undefined
}

/**
 * Reads a folder in the Hugging Face layout as the class that `model_type` and `architectures` of its config.json name.
 *
 * @throws DpMoeError MODEL_FORMAT for a model of another kind, with the kinds there are; else as the class's `fromPretrained`
 */
export async function openModel(
  device: Device,
  folder: string,
  options: OpenModelOptions = {},
): Promise<HuggingFaceModel> {
  const { open } = await classOf(folder, [...languageModels, ...classifiers], 'expected')
  return open(device, folder, options)
}

/**
 * Reads a language model: a Decoder or a SwitchTransformer.
 *
 * @throws DpMoeError MODEL_FORMAT for another model; else as `openModel`
 */
export async function openLanguageModel(device: Device, folder: string): Promise<GenerativeModel> {
  const { open } = await classOf(folder, languageModels, 'for a language model expected')
  return open(device, folder, {})
}

/** The first of the classes that config.json names; `expected` begins the reason where it names none. */
async function classOf<M extends HuggingFaceModel>(
  folder: string,
  classes: readonly ModelClass<M>[],
  expected: string,
): Promise<ModelClass<M>> {
  const path = join(folder, configFile)
  const { model_type: modelType, architectures, format } = await readJsonObject(path)
  const ofType = classes.filter(({ modelTypes }) => modelTypes.includes(modelType as string))
  if (ofType.length === 0) {
    const known = [...new Set(classes.flatMap(({ modelTypes }) => modelTypes))].join(', ')
    const own = typeof format === 'string' && format.startsWith('dp-moe') ? '; it is a model of dp-moe train' : ''
    throw new DpMoeError('MODEL_FORMAT', `${path}: ${expected} model_type ${known}, got ${shown(modelType)}${own}`)
  }
  if (!Array.isArray(architectures) || architectures.length === 0) return ofType[0]!
  const found = ofType.find((one) => architectures.some((name) => one.architectures.includes(name)))
  if (found) return found
  const known = ofType.flatMap((one) => one.architectures).join(', ')
  const got = architectures.map(shown).join(', ')
  throw new DpMoeError('MODEL_FORMAT', `${path}: ${expected} architectures ${known}, got ${got}`)
}

function shown(value: unknown): string {
  return value === undefined ? 'none' : typeof value === 'string' ? `'${value}'` : JSON.stringify(value)
}
