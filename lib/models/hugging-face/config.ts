import { z } from 'zod'
import type { Activation } from '../../autograd/activation.js'
import { DpMoeError } from '../../errors.js'
import type { JsonObject } from './checkpoint.js'

// What the config.json files of several models have in common.

export const positive = z.int().positive()

/** A number of layers: bounded, since layers are made before a checkpoint can be found to have fewer. */
export const layerCount = positive.max(10_000)

const activations: Readonly<Record<string, Activation>> = {
  relu: 'relu',
  gelu: 'gelu',
  gelu_new: 'geluTanh',
  gelu_pytorch_tanh: 'geluTanh',
  gelu_fast: 'geluTanh',
  silu: 'silu',
  swish: 'silu',
  tanh: 'tanh',
  linear: 'none',
}

/** An activation as config.json names it. */
export const activationName = z.string().refine((name) => Object.hasOwn(activations, name), {
  message: `expected one of ${Object.keys(activations).join(', ')}`,
})

export function activationOf(name: string): Activation {
  return activations[name]!
}

/** The first name that config.json has for an activation. */
export function settingOf(activation: Activation): string {
  return Object.entries(activations).find(([, known]) => known === activation)![0]
}

/** Parses the part of a config.json that a model reads; names the setting that is wrong. */
export function parseConfig<S extends z.ZodType>(schema: S, config: JsonObject): z.infer<S> {
  const parsed = schema.safeParse(config)
  if (parsed.success) return parsed.data
  const issue = parsed.error.issues[0]!
  throw new DpMoeError('MODEL_FORMAT', `${issue.path.join('.') || 'content'}: ${issue.message}`)
}

/** Refuses a setting that this library does not offer. */
export function refuse(condition: boolean, setting: string, reason: string): void {
  if (condition) throw new DpMoeError('MODEL_FORMAT', `${setting}: ${reason}`)
}

/**
 * Class names by number, from id2label.
 *
 * @throws DpMoeError MODEL_FORMAT for two classes of one name: no answer could tell them apart
 */
export function labelsOf(config: JsonObject): string[] | undefined {
  const names = z.record(z.string(), z.string()).safeParse(config.id2label)
  if (!names.success) return undefined
  const labels = Object.entries(names.data).map(([id, label]) => [Number(id), label] as const)
  labels.sort(([a], [b]) => a - b)
  const numberOf = new Map<string, number>()
  for (const [id, label] of labels) {
    const other = numberOf.get(label)
    refuse(other !== undefined, 'id2label', `${other} and ${id} are both '${label}'`)
    numberOf.set(label, id)
  }
  return labels.every(([id], index) => id === index) && labels.length > 0 ? labels.map(([, label]) => label) : undefined
}

/** The class names of a config.json; without any they are two, as in transformers. */
export function labelsOrTwo(config: JsonObject): string[] {
  return labelsOf(config) ?? ['LABEL_0', 'LABEL_1']
}

/** What the tensors of a classifier's head are called before `weight` and `bias`. */
export const headPrefix = 'classifier.'

/** Settings without the paths that other programs note of what they read; names on the hub stay. */
export function withoutPaths(settings: JsonObject): JsonObject {
  const isPath = (value: unknown) => typeof value === 'string' && /^[.~/]|\\|^[A-Za-z]:|\/.*\//.test(value)
  const kept = Object.entries(settings).filter(([key, value]) => !(/(_or_path|_file)$/.test(key) && isPath(value)))
  return Object.fromEntries(kept)
}

/** The same as config.json has it. */
export function labelSettings(labels: readonly string[]): JsonObject {
  return {
    id2label: Object.fromEntries(labels.map((label, id) => [id, label])),
    label2id: Object.fromEntries(labels.map((label, id) => [label, id])),
  }
}
