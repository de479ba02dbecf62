import { z } from 'zod'
import type { Device } from '../engine/device.js'
import { DpMoeError } from '../errors.js'
import { modelFolder } from '../hub/index.js'
import type { GenerativeModel } from '../models/generation/generate.js'
import { modelFingerprint } from '../models/hugging-face/fingerprint.js'
import { modelFromPretrained } from '../models/model-from-pretrained.js'
import { type PretrainedShape, readPretrainedShape } from '../models/pretrained-shape.js'
import { openPretrainedClassifier, pretrainedHead } from '../models/pretrained-text-classifier.js'
import { createClassifier, type TextClassifier } from '../models/text-classifier.js'
import { Initializer } from '../nn/initializer.js'
import type { Module } from '../nn/module.js'
import { setTrainable, type TrainableOptions } from '../nn/trainable.js'
import type { TrainOptions } from './options.js'
import type { Recipe } from './recipe.js'

const settingsSchema = z.strictObject({
  pretrained: z.string(),
  balanceLoss: z.number().nonnegative().optional(),
  releaseLoad: z.boolean().optional(),
  trainRouter: z.boolean().optional(),
  dropout: z.number().min(0).lt(1).optional(),
  pooling: z.enum(['cls', 'mean']).optional(),
})

/** A pretrained model that a run starts from. */
export interface PretrainedChoice {
  /** As the user named it: a folder, or owner/name on the hub. */
  readonly name: string
  readonly folder: string
  readonly shape: PretrainedShape
  /** SHA-256 of its configuration and weights, in hex: what a resumed run must start from again. */
  readonly fingerprint: string
  readonly settings: Omit<z.infer<typeof settingsSchema>, 'pretrained'>
}

/** The pretrained model that `model` names, downloaded where it is on the hub; undefined where it names none. */
export async function choosePretrained({
  model,
  task = 'classification',
  signal,
  onDownload,
}: TrainOptions): Promise<PretrainedChoice | undefined> {
  if (model === undefined || !('pretrained' in model)) return undefined
  const parsed = settingsSchema.safeParse(model)
  if (!parsed.success) {
    const issue = parsed.error.issues[0]!
    const known = Object.keys(settingsSchema.shape).slice(1).join(', ')
    const what =
      issue.code === 'unrecognized_keys' ? `there is no '${issue.keys[0]}'; there are ${known}` : issue.message
    throw new DpMoeError('INVALID_ARGUMENT', ['model', ...issue.path.map(String), what].join(': '))
  }
  const { pretrained: name, ...settings } = parsed.data
  const folder = await modelFolder(name, { ...(signal && { signal }), ...(onDownload && { onProgress: onDownload }) })
  return {
    name,
    folder,
    shape: await readPretrainedShape(folder, task),
    fingerprint: await modelFingerprint(folder),
    settings,
  }
}

/** A classifier with first weights from a public seed or a pretrained encoder, and what of it trains. */
export async function openClassifier(
  device: Device,
  { recipe, pretrained, labels, options }: ClassifierParts,
): Promise<TextClassifier> {
  const { model: config } = recipe
  if (pretrained?.settings.trainRouter === false && options.loraTargets?.includes('router')) {
    const message = "model: trainRouter=false freezes what loraTargets 'router' trains; leave one of them out"
    throw new DpMoeError('INVALID_ARGUMENT', message)
  }
  const model =
    config.modelType === 'pretrained'
      ? await openPretrainedClassifier(device, pretrained!.folder, config.kind, { ...pretrained!.settings, labels })
      : createClassifier(device, config, 0)
  chooseTrainable(device, model, options, { head: pretrainedHead })
  return model
}

/** A pretrained language model, and what of it trains. */
export async function openPretrainedLanguageModel(
  device: Device,
  { task, pretrained, options }: LanguageModelParts,
): Promise<GenerativeModel> {
  const offered = task === 'seq2seq' ? ['balanceLoss', 'dropout'] : ['balanceLoss']
  const foreign = Object.keys(pretrained.settings).find((name) => !offered.includes(name))
  if (foreign !== undefined) {
    const message = `model: ${foreign} is not offered for ${task}; there is ${offered.join(', ')}`
    throw new DpMoeError('INVALID_ARGUMENT', message)
  }
  const model = await modelFromPretrained(device, pretrained.folder, task, pretrained.settings)
  if (options.trainable === 'head' && model.head === undefined) {
    model[Symbol.dispose]()
    const message = "trainable 'head': the head of this model is its embedding table; choose lora or all"
    throw new DpMoeError('INVALID_ARGUMENT', message)
  }
  // The head is a table as large as the vocabulary, pretrained like the rest: it trains where it is asked for, or all is.
  const head = options.trainable === 'head' ? { head: pretrainedHead } : {}
  chooseTrainable(device, model, options, head)
  return model
}

interface LanguageModelParts {
  readonly task: 'causal-lm' | 'seq2seq'
  readonly pretrained: PretrainedChoice
  readonly options: TrainOptions
}

function chooseTrainable(
  device: Device,
  model: Module,
  { trainable = 'all', loraRank, loraAlpha, loraTargets, loraLayers }: TrainOptions,
  parts: Pick<TrainableOptions, 'head'>,
): void {
  setTrainable(model, trainable, new Initializer(device, 'adapters'), {
    ...parts,
    ...(loraRank !== undefined && { rank: loraRank }),
    targets: loraTargets,
    layers: loraLayers,
    ...(loraAlpha !== undefined && { alpha: loraAlpha }),
  })
}

interface ClassifierParts {
  readonly recipe: Recipe
  readonly pretrained: PretrainedChoice | undefined
  readonly labels: readonly string[]
  readonly options: TrainOptions
}
