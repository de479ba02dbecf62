import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { modelFromPretrained, type PretrainedTask, tasksOfType } from './model-from-pretrained.js'

/** What a model of each of the `architectures` in config.json does. */
const taskOf: Readonly<Record<string, PretrainedTask>> = {
  MixtralForCausalLM: 'causal-lm',
  OlmoeForCausalLM: 'causal-lm',
  Qwen3MoeForCausalLM: 'causal-lm',
  SwitchTransformersForConditionalGeneration: 'seq2seq',
  SwitchTransformersEncoderModel: 'classification',
  BertForSequenceClassification: 'classification',
  BertMoeForSequenceClassification: 'classification',
  BertModel: 'classification',
  BertForMaskedLM: 'classification',
  BertForPreTraining: 'classification',
}

/** The `architectures` of language models. */
export const languageArchitectures = Object.keys(taskOf).filter((name) => taskOf[name] !== 'classification')

export interface OpenModelOptions {
  /** Seed of a new head's first weights. Default 0. */
  readonly seed?: number | string
}

/**
 * Reads a folder in the Hugging Face layout as what `model_type` and `architectures` of its config.json name.
 *
 * @throws DpMoeError MODEL_FORMAT for a model of another kind, with the kinds there are; else as `modelFromPretrained`
 */
export async function openModel(
  device: Device,
  folder: string,
  options: OpenModelOptions = {},
): Promise<HuggingFaceModel> {
  return modelFromPretrained(device, folder, await readTask(folder), options)
}

/** What the model of a folder does: as its `architectures` say, or the usual of its model_type; undefined for an unknown one. */
export async function readModelTask(folder: string): Promise<PretrainedTask | undefined> {
  const { architectures, model_type: type } = await readJsonObject(join(folder, configFile))
  const names: unknown[] = Array.isArray(architectures) ? architectures : []
  const known = names.find((name) => typeof name === 'string' && Object.hasOwn(taskOf, name))
  return known === undefined ? tasksOfType(type)?.[0] : taskOf[known as string]
}

/** What the model of a folder does; undefined where its config.json names no architecture. */
export async function readTask(folder: string): Promise<PretrainedTask | undefined> {
  const path = join(folder, configFile)
  const { architectures } = await readJsonObject(path)
  if (!Array.isArray(architectures) || architectures.length === 0) return undefined
  const known = architectures.find((name) => typeof name === 'string' && Object.hasOwn(taskOf, name))
  if (known !== undefined) return taskOf[known as string]
  const got = architectures.map((name) => JSON.stringify(name)).join(', ')
  throw new DpMoeError(
    'MODEL_FORMAT',
    `${path}: architectures: expected one of ${Object.keys(taskOf).join(', ')}, got ${got}`,
  )
}
