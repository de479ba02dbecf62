import { join } from 'node:path'
import { z } from 'zod'
import { DpMoeError } from '../errors.js'
import { bertConfigFrom } from './bert-config.js'
import { decoderConfigFrom } from './decoder-kinds.js'
import { configFile, type JsonObject, readJsonObject } from './hugging-face/checkpoint.js'
import { modelTypesFor, type PretrainedTask } from './model-from-pretrained.js'
import { switchConfigFrom } from './switch-config.js'

/** The public numbers of a pretrained model, from its config.json. */
export interface PretrainedShape {
  readonly modelType: 'pretrained'
  readonly task: PretrainedTask
  /** `model_type` of its config.json. */
  readonly kind: string
  readonly vocabularySize: number
  readonly hiddenSize: number
  /** Width of an expert, or of the feed-forward part of a dense model. */
  readonly intermediateSize: number
  readonly numLayers: number
  readonly numAttentionHeads: number
  /** 0 for a dense model. */
  readonly numExperts: number
  readonly expertsPerToken: number
  /** Longest sequence; null where there is no limit. */
  readonly maxPositions: number | null
}

/**
 * Reads the shape of a model from a folder in the Hugging Face layout.
 *
 * @throws DpMoeError MODEL_FORMAT for a model that is not for the task, FILE_NOT_FOUND
 */
export async function readPretrainedShape(folder: string, task: PretrainedTask): Promise<PretrainedShape> {
  const path = join(folder, configFile)
  const source = await readJsonObject(path)
  try {
    return { modelType: 'pretrained', task, kind: String(source.model_type), ...numbersOf(source, task) }
  } catch (error) {
    if (!(error instanceof DpMoeError && error.code === 'MODEL_FORMAT')) throw error
    throw new DpMoeError('MODEL_FORMAT', `${path}: ${error.message}`, { cause: error })
  }
}

function numbersOf(source: JsonObject, task: PretrainedTask): Omit<PretrainedShape, 'modelType' | 'task' | 'kind'> {
  const known = modelTypesFor(task)
  const kind = String(source.model_type)
  if (!known.includes(kind)) {
    throw new DpMoeError('MODEL_FORMAT', `model_type: expected ${known.join(', ')} for the task ${task}, got '${kind}'`)
  }
  if (task === 'causal-lm') {
    const { vocabularySize, hiddenSize, expertSize, numLayers, ...rest } = decoderConfigFrom(source)
    const { numAttentionHeads, numExperts, expertsPerToken } = rest
    const shape = { vocabularySize, hiddenSize, intermediateSize: expertSize, numLayers, numAttentionHeads }
    return { ...shape, numExperts, expertsPerToken, maxPositions: positionsOf(source) }
  }
  if (kind === 'switch_transformers') {
    const { numExperts, numLayers, ...rest } = switchConfigFrom(source, {})
    const { vocabularySize, hiddenSize, intermediateSize, numAttentionHeads } = rest
    const shape = { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads }
    return { ...shape, numExperts, expertsPerToken: 1, maxPositions: null }
  }
  const { mixture, ...rest } = bertConfigFrom(source)
  const { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads, maxPositions } = rest
  const shape = { vocabularySize, hiddenSize, intermediateSize, numLayers, numAttentionHeads, maxPositions }
  const { numExperts = 0, expertsPerToken = 0 } = mixture ?? {}
  return { ...shape, numExperts, expertsPerToken }
}

/** The positions that a decoder was trained on, where its config.json says so. */
function positionsOf({ max_position_embeddings: stated }: JsonObject): number | null {
  const positions = z.int().positive().safeParse(stated)
  return positions.success ? positions.data : null
}
