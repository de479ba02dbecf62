import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { BertClassifier, type BertLoadOptions } from './bert.js'
import { Decoder, type DecoderLoadOptions } from './decoder.js'
import { decoderKinds } from './decoder-kinds.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import { type SwitchClassifierLoadOptions, SwitchEncoderClassifier, SwitchTransformer } from './switch-transformer.js'

/** What a pretrained model is to do, and the models that do it. */
export interface PretrainedTasks {
  classification: BertClassifier | SwitchEncoderClassifier
  seq2seq: SwitchTransformer
  'causal-lm': Decoder
}

export type PretrainedTask = keyof PretrainedTasks

export type PretrainedOptions = BertLoadOptions & DecoderLoadOptions & SwitchClassifierLoadOptions

/** The tasks of each model_type, the usual one first. */
const tasksOf: Readonly<Record<string, readonly PretrainedTask[]>> = {
  bert: ['classification'],
  bert_moe: ['classification'],
  switch_transformers: ['seq2seq', 'classification'],
  ...Object.fromEntries(decoderKinds.map((kind) => [kind, ['causal-lm']])),
}

/** The `model_type`s of the models for a task. */
export function modelTypesFor(task: PretrainedTask): string[] {
  return Object.keys(tasksOf).filter((type) => tasksOf[type]!.includes(task))
}

/** The tasks of a `model_type`, the usual one first; undefined where it is not offered. */
export function tasksOfType(type: unknown): readonly PretrainedTask[] | undefined {
  return typeof type === 'string' && Object.hasOwn(tasksOf, type) ? tasksOf[type] : undefined
}

/**
 * Reads a folder in the Hugging Face layout, as the model its config.json names.
 *
 * @param task default: the usual one of the model
 * @throws DpMoeError MODEL_FORMAT for a model that is not offered or has no such task, and as the models' own `fromPretrained`
 */
export async function modelFromPretrained<T extends PretrainedTask>(
  device: Device,
  folder: string,
  task?: T,
  options: PretrainedOptions = {},
): Promise<PretrainedTasks[T]> {
  const path = join(folder, configFile)
  const { model_type: type } = await readJsonObject(path)
  const tasks = tasksOfType(type)
  if (!tasks) {
    const known = Object.keys(tasksOf).join(', ')
    throw new DpMoeError('MODEL_FORMAT', `${path}: model_type: expected one of ${known}, got ${JSON.stringify(type)}`)
  }
  const chosen = task ?? tasks[0]!
  if (!tasks.includes(chosen)) {
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${path}: a model of type ${type} is for ${tasks.join(' or ')}, not for ${chosen}`,
    )
  }
  const load = (): Promise<PretrainedTasks[PretrainedTask]> => {
    if (type === 'bert' || type === 'bert_moe') return BertClassifier.fromPretrained(device, folder, options)
    if (chosen === 'causal-lm') return Decoder.fromPretrained(device, folder, options)
    if (chosen === 'seq2seq') return SwitchTransformer.fromPretrained(device, folder, options)
    return SwitchEncoderClassifier.fromPretrained(device, folder, options)
  }
  return (await load()) as PretrainedTasks[T]
}
