import { existsSync, realpathSync } from 'node:fs'
import { isAbsolute, join, relative, sep } from 'node:path'
import type { Dataset, HuggingFaceTokenizer, Tokenizer } from '../data/index.js'
import type { Device } from '../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { saveAdapters } from '../models/hugging-face/adapters.js'
import { savePretrained } from '../models/pretrained.js'
import type { PretrainedTextClassifier } from '../models/pretrained-text-classifier.js'
import type { TextClassifier } from '../models/text-classifier.js'
import { Telemetry } from '../nn/telemetry.js'
import { mergeAdapters } from '../nn/trainable.js'
import { createNonPrivateStatement, writeCertificate } from '../privacy/certificate.js'
import { fileKey, osKey, type RunKey, seedKey } from '../privacy/keys.js'
import type { LoadNoise } from '../privacy/load-noise.js'
import { ShuffleSampler } from '../privacy/sampling.js'
import { version } from '../version.js'
import { evaluateClassifier } from './evaluate.js'
import { makeOptimizer } from './make-optimizer.js'
import { rowsWithinBudget } from './memory.js'
import { openDevice } from './open-device.js'
import { choosePretrained, openModel, type PretrainedChoice } from './open-model.js'
import { openRun } from './open-run.js'
import { type TrainMessage, type TrainOptions, type TrainResult, trainOptionNames } from './options.js'
import {
  defaultMaxExamplesPerUser,
  encodeTexts,
  type LoadedTexts,
  loadTexts,
  openTokenizer,
  unitsOf,
} from './prepare-data.js'
import { type PrivatePlan, planPrivacy } from './private-plan.js'
import { PrivateRun } from './private-run.js'
import { chooseRecipe, describeRecipe, type Recipe } from './recipe.js'
import { plainSteps } from './session.js'
import { trainingLoop } from './training-loop.js'

/**
 * Trains a text classifier from a file, privately unless told otherwise, and writes a run folder: `release/` holds the
 * model and its certificate, `private/` what the guarantee does not cover.
 *
 * Guarantee. What `release/` holds is (epsilon, delta)-differentially private as its certificate states. The result's
 * `validation` and the progress callbacks are computed without noise.
 *
 * @throws DpMoeError, OutOfRangeError: bad options or data, before anything is spent; a full disk; ABORTED by `signal`
 */
export async function train(options: TrainOptions): Promise<TrainResult> {
  try {
    return await trainFromFiles(options)
  } catch (error) {
    const { signal } = options
    const isReason = signal?.aborted && error === signal.reason && !(error instanceof DpMoeError)
    throw isReason ? new DpMoeError('ABORTED', 'Stopped by its signal', { cause: error }) : error
  }
}

async function trainFromFiles(options: TrainOptions): Promise<TrainResult> {
  const started = performance.now()
  checkOptions(options)
  const say = (level: TrainMessage['level']) => (text: string) => options.onMessage?.({ level, text })
  const texts = await loadTexts(options)
  const examples = unitsOf(texts.training)
  const pretrained = await choosePretrained(options)
  const facts = { examples, classes: texts.labels.size, pretrained: pretrained?.shape }
  const plan = options.nonPrivate ? undefined : planPrivacy(options, facts)
  const recipe = plan?.recipe ?? chooseRecipe(facts, options)
  for (const text of describeRecipe(recipe, examples, plan)) say('info')(text)
  for (const text of describeUsers(texts, options)) say('info')(text)
  for (const text of plan?.warnings ?? []) say('warning')(text)
  const tokenizer = await openTokenizer(recipe.tokenizer, options.tokenizer ?? pretrained?.folder)
  requireLength(recipe)
  requireVocabulary(recipe, tokenizer)
  const training = await encodeTexts(texts.training, tokenizer, recipe.bag, options.signal)
  const validation = texts.validation && (await encodeTexts(texts.validation, tokenizer, recipe.bag, options.signal))
  const device = openDevice(options)
  try {
    const model = await openModel(device, { recipe, pretrained, labels: texts.labels.names, options })
    const parts = { options, recipe, pretrained, texts, tokenizer, training, validation, device, model, started }
    return plan ? await trainPrivately(parts, plan, say) : await trainPlainly(parts, say('warning'))
  } finally {
    device.close()
  }
}

interface Parts {
  readonly options: TrainOptions
  readonly recipe: Recipe
  readonly pretrained: PretrainedChoice | undefined
  readonly texts: LoadedTexts
  readonly tokenizer: Tokenizer
  readonly training: Dataset
  readonly validation: Dataset | undefined
  readonly device: Device
  readonly model: TextClassifier
  readonly started: number
}

type Say = (level: TrainMessage['level']) => (text: string) => void

async function trainPrivately(parts: Parts, plan: PrivatePlan, say: Say): Promise<TrainResult> {
  const { options, recipe, pretrained, training, device, model } = parts
  const key = runKey(options)
  const optimizer = makeOptimizer(model, recipe, plan.steps)
  const telemetry = new Telemetry(device)
  const run = await openRun({
    options,
    recipe,
    pretrained,
    data: training,
    model,
    optimizer,
    device,
    key,
    plan,
    warn: say('warning'),
  })
  try {
    const privateRun = new PrivateRun({
      ...parts,
      optimizer,
      run,
      plan,
      maxRows: maxRows(options, recipe),
      users: options.group === undefined ? undefined : { maxExamples: maxExamplesPerUser(options) },
    })
    if (privateRun.loadNoise) describeLoadNoise(privateRun.loadNoise, say)
    await trainingLoop({
      ...parts,
      run,
      steps: plan.steps,
      maker: privateRun.maker,
      telemetry,
      epsilonAt: plan.epsilonAt,
    })
    await run.ledger!.end()
    const epsilon = privateRun.epsilon()
    await run.folder.writeRelease(async (folder) => {
      await saveModel(folder, parts)
      await privateRun.writeCertificate(folder, parts.texts.labels)
    })
    return await finish(parts, {
      private: true,
      steps: run.ledger!.steps,
      epsilon,
      delta: plan.delta,
      noiseMultiplier: plan.noiseMultiplier,
    })
  } finally {
    await run.close()
  }
}

/** Above this noise the balance loss pushes about at random. */
const noisyLoad = 0.3

function describeLoadNoise({ ofRelease, ofEstimate, smoothing }: LoadNoise, say: Say): void {
  const percent = (fraction: number) => `${(100 * fraction).toFixed(0)} %`
  const text =
    `released load: noise ${percent(ofRelease)} of an expert's load in a step, ${percent(ofEstimate)} in the estimate ` +
    `(weight ${smoothing.toFixed(2)} on the newest)`
  if (ofEstimate <= noisyLoad) say('info')(text)
  else say('warning')(`${text}: too noisy to balance by. Take larger batches, or the balance loss per example`)
}

async function trainPlainly(parts: Parts, warn: (text: string) => void): Promise<TrainResult> {
  const { options, recipe, pretrained, training, device, model } = parts
  const key = seedKey(options.seed ?? 0)
  const sampler = new ShuffleSampler(training.length, Math.min(training.length, recipe.expectedBatchSize), key)
  const { steps } = recipe
  const optimizer = makeOptimizer(model, recipe, steps)
  const telemetry = new Telemetry(device)
  const run = await openRun({
    options,
    recipe,
    pretrained,
    data: training,
    model,
    optimizer,
    device,
    key,
    plan: undefined,
    warn,
  })
  try {
    const maker = plainSteps(
      { device, model, data: training, maxRows: maxRows(options, recipe) },
      optimizer,
      sampler,
      key,
    )
    await trainingLoop({ ...parts, run, steps, maker, telemetry, epsilonAt: undefined })
    await run.folder.writeRelease(async (folder) => {
      await saveModel(folder, parts)
      await writeCertificate(join(folder, 'certificate.json'), createNonPrivateStatement({ name: 'dp-moe', version }))
    })
    const facts = { private: false, steps, epsilon: undefined, delta: undefined, noiseMultiplier: undefined }
    return await finish(parts, facts)
  } finally {
    await run.close()
  }
}

/** Scores the released model on the validation data and puts the result together. */
async function finish(
  { options, training, validation, device, model, started }: Parts,
  facts: Pick<TrainResult, 'private' | 'steps' | 'epsilon' | 'delta' | 'noiseMultiplier'>,
): Promise<TrainResult> {
  const result = validation && (await evaluateClassifier(device, model, validation, options.signal))
  const seconds = (performance.now() - started) / 1000
  const users = options.group === undefined ? undefined : training.length
  const counts = { examples: training.labels.length, users }
  return { output: options.output, ...counts, seconds, validation: result, ...facts }
}

function maxExamplesPerUser(options: TrainOptions): number {
  return options.maxExamplesPerUser ?? defaultMaxExamplesPerUser
}

/** What grouping by user made of the training file. */
function describeUsers({ training, leftOut }: LoadedTexts, { group }: TrainOptions): string[] {
  if (group === undefined) return []
  const kept = `${training.texts.length} examples of ${unitsOf(training)} users (column '${group}')`
  return [`units: users; ${kept}${leftOut > 0 ? `, ${leftOut} more left out: --max-examples-per-user` : ''}`]
}

/** Writes the model with plain weights, adapters merged into them; or the adapters alone. */
async function saveModel(
  folder: string,
  { model, recipe, texts, tokenizer, options, pretrained }: Parts,
): Promise<void> {
  if (options.release === 'adapters') {
    return await saveAdapters(folder, model as PretrainedTextClassifier, pretrained!, tokenizer as HuggingFaceTokenizer)
  }
  mergeAdapters(model)
  const config = recipe.model.modelType === 'pretrained' ? undefined : recipe.model
  await savePretrained(folder, { model, config, labels: texts.labels.names, tokenizer, bag: recipe.bag })
}

function runKey(options: TrainOptions): RunKey {
  if (options.keyFile !== undefined) {
    const key = fileKey(options.keyFile)
    requireOutside(options.keyFile, options.output)
    return key
  }
  return options.seed === undefined ? osKey() : seedKey(options.seed)
}

/** A run folder is copied, kept and overwritten as a whole; its noise key must not be. */
function requireOutside(keyFile: string, output: string): void {
  if (!existsSync(output)) return
  const way = relative(realpathSync(output), realpathSync(keyFile))
  if (way === '..' || way.startsWith(`..${sep}`) || isAbsolute(way)) return
  throw new DpMoeError('INVALID_ARGUMENT', `The key file ${keyFile} is in the run folder ${output}. Keep it elsewhere`)
}

function maxRows(options: TrainOptions, recipe: Recipe): number {
  return options.maxTokensPerMicrobatch ?? rowsWithinBudget(recipe.model, options.memoryBudget)
}

function requireLength({ model, tokenizer: { maxLength } }: Recipe): void {
  const longest = model.modelType === 'pretrained' ? model.maxPositions : null
  if (longest === null || maxLength <= longest) return
  throw new OutOfRangeError('maxLength', `at most ${longest}, the model's positions`, maxLength)
}

function requireVocabulary(recipe: Recipe, tokenizer: Tokenizer): void {
  if (tokenizer.vocabularySize <= recipe.model.vocabularySize) return
  throw new DpMoeError(
    'INVALID_ARGUMENT',
    `model: expected a vocabularySize of at least the tokenizer's ${tokenizer.vocabularySize}, got ${recipe.model.vocabularySize}`,
  )
}

const wholeNumbers = [
  'maxTokensPerMicrobatch',
  'checkpointEvery',
  'maxLength',
  'threads',
  'steps',
  'maxExamplesPerUser',
] as const

function checkOptions(options: TrainOptions): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(trainOptionNames, name))
  if (unknown !== undefined) {
    const names = Object.keys(trainOptionNames).join(', ')
    throw new DpMoeError('INVALID_ARGUMENT', `There is no option '${unknown}'; the options are ${names}`)
  }
  for (const name of ['train', 'output'] as const) {
    if (typeof options[name] !== 'string') {
      throw new DpMoeError('INVALID_ARGUMENT', `Expected a path for ${name}, got ${String(options[name])}`)
    }
  }
  if (options.seed !== undefined && options.keyFile !== undefined) {
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected a seed or a key file, got both')
  }
  if (options.maxExamplesPerUser !== undefined && options.group === undefined) {
    throw new DpMoeError('INVALID_ARGUMENT', 'maxExamplesPerUser: expected a group column with it, got none')
  }
  if (options.release === 'adapters' && !(options.trainable === 'lora' && 'pretrained' in (options.model ?? {}))) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      "release: 'adapters' is for trainable 'lora' and a pretrained model; expected both with it",
    )
  }
  if (options.resume && options.overwrite) {
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected resume or overwrite, got both')
  }
  for (const name of ['epochs', 'steps', 'expectedBatchSize', 'learningRate', 'maxGradNorm', 'memoryBudget'] as const) {
    const value = options[name]
    if (value !== undefined && !(value > 0 && Number.isFinite(value))) {
      throw new OutOfRangeError(name, 'a finite number > 0', value)
    }
  }
  for (const name of wholeNumbers) {
    const value = options[name]
    if (value !== undefined && !(Number.isInteger(value) && value >= 1)) {
      throw new OutOfRangeError(name, 'an integer >= 1', value)
    }
  }
}
