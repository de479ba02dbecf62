import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import type { BertMixtureTraining, BertPooling } from './bert-config.js'
import { Checkpoint, configFile, readJsonObject } from './hugging-face/checkpoint.js'
import { headPrefix, labelsOrTwo } from './hugging-face/config.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { modelFromPretrained } from './model-from-pretrained.js'
import type { TextClassifier } from './text-classifier.js'

/** A classifier on an encoder in the Hugging Face layout. */
export type PretrainedTextClassifier = HuggingFaceModel & TextClassifier & { readonly labels: readonly string[] }

/** What a training run may set of a pretrained encoder. */
export interface PretrainedOptions extends BertMixtureTraining {
  /** Class names of a new head; default those of config.json. */
  readonly labels?: readonly string[]
  /** Seed of a new head's first weights. Default 0. */
  readonly seed?: number | string
  /** Default 0. */
  readonly dropout?: number
  /** Of a BERT; default that of config.json, 'cls' where it names none. */
  readonly pooling?: BertPooling
}

/** Full names of the parameters above the encoder: what a new task trains under every choice. */
export const pretrainedHead = /^(head|pooler)\./

/** Opens an encoder with a head for classes: its own where the checkpoint has one for as many, else a new one. */
export async function openPretrainedClassifier(
  device: Device,
  folder: string,
  kind: string,
  options: PretrainedOptions = {},
): Promise<PretrainedTextClassifier> {
  const { trainRouter, releaseLoad, pooling } = options
  if (kind === 'switch_transformers' && (trainRouter === false || releaseLoad || pooling)) {
    throw new DpMoeError('INVALID_ARGUMENT', `model: trainRouter, releaseLoad and pooling are not offered for ${kind}`)
  }
  return modelFromPretrained(device, folder, 'classification', options)
}

/** For how many classes a checkpoint's head is that gives place to a new one for `labels`; undefined where none does. */
export async function classesOfReplacedHead(folder: string, labels: readonly string[]): Promise<number | undefined> {
  const own = labelsOrTwo(await readJsonObject(join(folder, configFile))).length
  if (own === labels.length) return undefined
  await using checkpoint = await Checkpoint.open(folder)
  return checkpoint.has(`${headPrefix}weight`) ? own : undefined
}
