import { join } from 'node:path'
import { z } from 'zod'
import { DpMoeError } from '../../errors.js'
import { isScale } from '../../nn/low-rank-adapter.js'
import { adapterConfigFile, exists, type JsonObject, readJsonObject } from './checkpoint.js'

// The layout in which PEFT keeps LoRA adapters.

export const adapterWeightsFile = 'adapter_model.safetensors'

/** Where the adapters' safetensors metadata holds the fingerprint of the model that they belong to. */
export const baseFingerprintKey = 'base_model_sha256'

/** What PEFT puts before the names of a model's tensors. */
export const adapterPrefix = 'base_model.model.'

/** Whether a folder holds adapters in place of a whole model. */
export function holdsAdapters(folder: string): Promise<boolean> {
  return exists(join(folder, adapterConfigFile))
}

export interface AdapterConfig {
  /** As whoever trained the adapters named it: a folder, or owner/name on the hub. */
  readonly base: string
  readonly rank: number
  readonly alpha: number
}

/** An adapter_config.json that was read. */
export interface ReadAdapterConfig extends AdapterConfig {
  /** Names of adapted layers, or the last parts of them; none where it gives a pattern. */
  readonly targets: readonly string[]
  /** The same of layers that are kept whole. */
  readonly whole: readonly string[]
  /** The same of layers that have no adapter though `targets` names them; none where it gives a pattern. */
  readonly excluded: readonly string[]
  /** Numbers of the layers that `targets` means by last parts; all of them where this is empty. */
  readonly layers: readonly number[]
  /** What may stand before such a number in a name; anything where this is empty. */
  readonly beforeNumber: readonly string[]
}

const layerNames = z.array(z.string().min(1))
const layerNumber = z.int().nonnegative()
// PEFT reads a pattern; a plain part of a name is one that cannot take forever.
const partOfName = z.string().regex(/^[\w.]*$/, 'expected a part of a name')
/** One, several or none, as a list. */
const several = <T extends z.ZodType>(one: T) =>
  z
    .union([one, z.array(one)])
    .nullish()
    .transform((value) => (value === null || value === undefined ? [] : Array.isArray(value) ? value : [value]))

const schema = z.looseObject({
  peft_type: z.literal('LORA'),
  base_model_name_or_path: z.string().min(1),
  r: z.int().positive(),
  lora_alpha: z.number().positive(),
  target_modules: z.union([z.string(), layerNames]).nullish(),
  modules_to_save: layerNames.nullish(),
  exclude_modules: z.union([z.string(), layerNames]).nullish(),
  layers_to_transform: several(layerNumber),
  layers_pattern: several(partOfName),
})

/** Settings under which PEFT computes something else than W + alpha / r B A, or keeps it in other tensors. */
const notOffered = [
  'alora_invocation_tokens',
  'alpha_pattern',
  'bias',
  'fan_in_fan_out',
  'lora_bias',
  'rank_pattern',
  'target_parameters',
  'trainable_token_indices',
  'use_dora',
  'use_rslora',
]

const isOff = (value: unknown) =>
  value === undefined ||
  value === null ||
  value === false ||
  value === 'none' ||
  (typeof value === 'object' && Object.keys(value).length === 0)

/**
 * Reads an adapter_config.json.
 *
 * @throws DpMoeError MODEL_FORMAT for what is no LoRA, or a kind of it that is not offered, naming the setting
 */
export async function readAdapterConfig(folder: string): Promise<ReadAdapterConfig> {
  const path = join(folder, adapterConfigFile)
  const source = await readJsonObject(path)
  const parsed = schema.safeParse(source)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!
    throw new DpMoeError('MODEL_FORMAT', `${path}: ${issue.path.join('.')}: ${issue.message}`)
  }
  const setting = notOffered.find((name) => !isOff(source[name]))
  if (setting !== undefined) {
    const value = JSON.stringify(source[setting])
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${path}: ${setting}: ${value} is not offered. Merge the adapters with the library that made them`,
    )
  }
  const {
    base_model_name_or_path: base,
    r: rank,
    lora_alpha: alpha,
    target_modules: targets,
    exclude_modules: excluded,
  } = parsed.data
  if (!isScale(alpha / rank)) {
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${path}: lora_alpha / r: expected a number that float32 holds, got ${alpha} / ${rank}`,
    )
  }
  return {
    base,
    rank,
    alpha,
    targets: Array.isArray(targets) ? targets : [],
    whole: parsed.data.modules_to_save ?? [],
    excluded: Array.isArray(excluded) ? excluded : [],
    layers: parsed.data.layers_to_transform,
    beforeNumber: parsed.data.layers_pattern.filter((part) => part !== ''),
  }
}

const taskTypes: readonly (readonly [RegExp, string])[] = [
  [/ForSequenceClassification$/, 'SEQ_CLS'],
  [/ForCausalLM$/, 'CAUSAL_LM'],
  [/ForConditionalGeneration$/, 'SEQ_2_SEQ_LM'],
]

/** The adapter_config.json that says the same. `targets`: adapted layers; `whole`: layers that are kept as they are. */
export function adapterSettings(
  { base, rank, alpha }: AdapterConfig,
  { architectures, targets, whole }: { architectures: unknown; targets: readonly string[]; whole: readonly string[] },
): JsonObject {
  const architecture = Array.isArray(architectures) ? String(architectures[0]) : ''
  return {
    peft_type: 'LORA',
    task_type: taskTypes.find(([pattern]) => pattern.test(architecture))?.[1] ?? null,
    base_model_name_or_path: base,
    inference_mode: true,
    r: rank,
    lora_alpha: alpha,
    lora_dropout: 0,
    bias: 'none',
    fan_in_fan_out: false,
    target_modules: targets,
    modules_to_save: whole.length > 0 ? whole : null,
  }
}
