import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { type BertMixtureTraining, bertConfigFrom } from './bert-config.js'
import { configFile, readJsonObject } from './hugging-face/checkpoint.js'
import type { HuggingFaceModel } from './hugging-face/hugging-face-model.js'
import { modelFromPretrained } from './model-from-pretrained.js'
import { switchConfigFrom } from './switch-config.js'
import type { TextClassifier } from './text-classifier.js'

/** A classifier on an encoder in the Hugging Face layout. */
export type PretrainedTextClassifier = HuggingFaceModel & TextClassifier & { readonly labels: readonly string[] }

/** The public numbers of a pretrained encoder, from its config.json. */
export interface PretrainedShape {
  readonly modelType: 'pretrained'
  /** `model_type` of its config.json. */
  readonly kind: string
  readonly vocabularySize: number
  readonly hiddenSize: number
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numAttentionHeads: number
  /** 0 for a dense model. */
  readonly numExperts: number
  readonly expertsPerToken: number
  /** Longest sequence; null where there is no limit. */
  readonly maxPositions: number | null
}

/** What a training run may set of a pretrained encoder. */
export interface PretrainedOptions extends BertMixtureTraining {
  /** Class names of a new head; default those of config.json. */
  readonly labels?: readonly string[]
  /** Seed of a new head's first weights. Default 0. */
  readonly seed?: number | string
  /** Default 0. */
  readonly dropout?: number
}

/** Full names of the parameters above the encoder: what a new task trains under every choice. */
export const pretrainedHead = /^(head|pooler)\./

const kinds = ['bert', 'bert_moe', 'switch_transformers']

/**
 * Reads the shape of an encoder from a folder in the Hugging Face layout.
 *
 * @throws DpMoeError MODEL_FORMAT for another kind of model, FILE_NOT_FOUND
 */
export async function readPretrainedShape(folder: string): Promise<PretrainedShape> {
  const path = join(folder, configFile)
  const source = await readJsonObject(path)
  const kind = String(source.model_type)
  try {
    if (kind === 'switch_transformers') {
      const { numExperts, numLayers, ...rest } = switchConfigFrom(source, {})
      const { vocabularySize, hiddenSize, intermediateSize, numAttentionHeads } = rest
      const shape = { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads }
      return { modelType: 'pretrained', kind, ...shape, numExperts, expertsPerToken: 1, maxPositions: null }
    }
    if (kind !== 'bert' && kind !== 'bert_moe') {
      throw new DpMoeError('MODEL_FORMAT', `model_type: expected ${kinds.join(', ')} for a classifier, got '${kind}'`)
    }
    const { mixture, ...rest } = bertConfigFrom(source)
    const { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads, maxPositions } = rest
    const shape = { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads, maxPositions }
    const { numExperts = 0, expertsPerToken = 0 } = mixture ?? {}
    return { modelType: 'pretrained', kind, ...shape, numExperts, expertsPerToken }
  } catch (error) {
    if (!(error instanceof DpMoeError && error.code === 'MODEL_FORMAT')) throw error
    throw new DpMoeError('MODEL_FORMAT', `${path}: ${error.message}`, { cause: error })
  }
}

/** Opens an encoder with a head for classes: its own where the checkpoint has one for these labels, else a new one. */
export async function openPretrainedClassifier(
  device: Device,
  folder: string,
  kind: string,
  options: PretrainedOptions = {},
): Promise<PretrainedTextClassifier> {
  if (kind === 'switch_transformers' && (options.trainRouter === false || options.releaseLoad)) {
    throw new DpMoeError('INVALID_ARGUMENT', `model: trainRouter and releaseLoad are not offered for ${kind}`)
  }
  return modelFromPretrained(device, folder, 'classification', options)
}
