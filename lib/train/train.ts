import { existsSync, realpathSync } from 'node:fs'
import { join } from 'node:path'
import type { Device } from '../engine/device.js'
import { DpMoeError, OutOfRangeError } from '../errors.js'
import { isWithin } from '../files.js'
import { certificateFile } from '../models/model-folder.js'
import { Telemetry } from '../nn/telemetry.js'
import { createNonPrivateStatement, writeCertificate } from '../privacy/certificate.js'
import { fileKey, osKey, type RunKey, seedKey } from '../privacy/keys.js'
import type { LoadNoise } from '../privacy/load-noise.js'
import { ShuffleSampler } from '../privacy/sampling.js'
import { version } from '../version.js'
import { loadClassification } from './classification-task.js'
import { withDataset } from './hub-data.js'
import { loadLanguageTask } from './language-task.js'
import { longUnitsWarning } from './long-units.js'
import { makeOptimizer } from './make-optimizer.js'
import { rowsWithinBudget } from './memory.js'
import { openDevice } from './open-device.js'
import { choosePretrained, type PretrainedChoice } from './open-model.js'
import { openRun } from './open-run.js'
import { type Say, type TrainOptions, type TrainResult, trainChoices, trainOptionNames } from './options.js'
import { type PrivatePlan, planPrivacy } from './private-plan.js'
import { PrivateRun } from './private-run.js'
import { defaultMaxExamplesPerUser } from './read-sides.js'
import { chooseRecipe, describeRecipe, type Recipe, requireLength } from './recipe.js'
import { plainSteps } from './session.js'
import type { EncodedTask, Learner, LoadedTask } from './task.js'
import { trainingLoop } from './training-loop.js'

/**
 * Trains a text classifier or a language model from a file, privately unless told otherwise, and writes a run folder: `release/` holds the
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

async function trainFromFiles(given: TrainOptions): Promise<TrainResult> {
  const started = performance.now()
  checkOptions(given)
  const options = await withDataset(given)
  const say: Say = (level) => (text) => options.onMessage?.({ level, text })
  const { task = 'classification' } = options
  const loaded = await (task === 'classification' ? loadClassification(options) : loadLanguageTask(task, options))
  const { units, classes } = loaded
  const pretrained = await choosePretrained(options)
  if (pretrained) requireOutside('model', pretrained.folder, options.output)
  if (options.tokenizer !== undefined) requireOutside('tokenizer', options.tokenizer, options.output)
  const facts = { examples: units, classes, pretrained: pretrained?.shape }
  const plan = options.nonPrivate ? undefined : planPrivacy(options, facts)
  const recipe = plan?.recipe ?? chooseRecipe(facts, options)
  requireLength(recipe)
  for (const text of describeRecipe(recipe, units, plan)) say('info')(text)
  for (const text of describeUsers(loaded, options)) say('info')(text)
  for (const text of plan?.warnings ?? []) say('warning')(text)
  for (const text of longUnitsWarning(options, recipe, maxExamplesPerUser(options))) say('warning')(text)
  const encoded = await loaded.encode(recipe, pretrained, options.signal)
  for (const text of encoded.warnings) say('warning')(text)
  const device = openDevice(options)
  try {
    const learner = await encoded.open(device)
    learner.model.setActivationCheckpointing(options.activationCheckpointing ?? false)
    const parts = { options, recipe, pretrained, loaded, encoded, device, learner, started }
    return plan ? await trainPrivately(parts, plan, say) : await trainPlainly(parts, say)
  } finally {
    device.close()
  }
}

interface Parts {
  readonly options: TrainOptions
  readonly recipe: Recipe
  readonly pretrained: PretrainedChoice | undefined
  readonly loaded: LoadedTask
  readonly encoded: EncodedTask
  readonly device: Device
  readonly learner: Learner
  readonly started: number
}

async function trainPrivately(parts: Parts, plan: PrivatePlan, say: Say): Promise<TrainResult> {
  const { options, recipe, device, learner } = parts
  const key = runKey(options)
  const optimizer = makeOptimizer(learner.model, recipe, plan.steps)
  const telemetry = new Telemetry(device)
  const common = { ...parts, model: learner.model, optimizer }
  const run = await openRun({ ...common, key, plan, say })
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
      await learner.save(folder)
      await privateRun.writeCertificate(folder)
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

async function trainPlainly(parts: Parts, say: Say): Promise<TrainResult> {
  const { options, recipe, encoded, device, learner } = parts
  const { training } = encoded
  const key = seedKey(options.seed ?? 0)
  const sampler = new ShuffleSampler(training.length, Math.min(training.length, recipe.expectedBatchSize), key)
  const { steps } = recipe
  const optimizer = makeOptimizer(learner.model, recipe, steps)
  const telemetry = new Telemetry(device)
  const common = { ...parts, model: learner.model, optimizer }
  const run = await openRun({ ...common, key, plan: undefined, say })
  try {
    const maker = plainSteps({ device, learner, maxRows: maxRows(options, recipe) }, optimizer, sampler, key)
    await trainingLoop({ ...parts, run, steps, maker, telemetry, epsilonAt: undefined })
    await run.folder.writeRelease(async (folder) => {
      await learner.save(folder)
      await writeCertificate(join(folder, certificateFile), createNonPrivateStatement({ name: 'dp-moe', version }))
    })
    const facts = { private: false, steps, epsilon: undefined, delta: undefined, noiseMultiplier: undefined }
    return await finish(parts, facts)
  } finally {
    await run.close()
  }
}

/** Scores the released model on the validation data and puts the result together. */
async function finish(
  { options, loaded, learner, started }: Parts,
  facts: Pick<TrainResult, 'private' | 'steps' | 'epsilon' | 'delta' | 'noiseMultiplier'>,
): Promise<TrainResult> {
  const result = await learner.validate(options.signal)
  const seconds = (performance.now() - started) / 1000
  const users = options.group === undefined ? undefined : loaded.units
  return { output: options.output, examples: loaded.examples, users, seconds, validation: result, ...facts }
}

function maxExamplesPerUser(options: TrainOptions): number {
  return options.maxExamplesPerUser ?? defaultMaxExamplesPerUser
}

/** What grouping by user made of the training file. */
function describeUsers({ examples, units, leftOut }: LoadedTask, { group }: TrainOptions): string[] {
  if (group === undefined) return []
  const kept = `${examples} examples of ${units} users (column '${group}')`
  return [`units: users; ${kept}${leftOut > 0 ? `, ${leftOut} more left out: --max-examples-per-user` : ''}`]
}

function runKey(options: TrainOptions): RunKey {
  if (options.keyFile !== undefined) {
    const key = fileKey(options.keyFile)
    requireOutside('key file', options.keyFile, options.output)
    return key
  }
  return options.seed === undefined ? osKey() : seedKey(options.seed)
}

/** A run folder is copied, kept and overwritten as a whole; its noise key must not be, nor what the run starts from. */
function requireOutside(what: string, path: string, output: string): void {
  if (!existsSync(output) || !existsSync(path) || !isWithin(realpathSync(path), realpathSync(output))) return
  throw new DpMoeError('INVALID_ARGUMENT', `The ${what} ${path} is in the run folder ${output}. Keep it elsewhere`)
}

function maxRows(options: TrainOptions, recipe: Recipe): number {
  return options.maxTokensPerMicrobatch ?? rowsWithinBudget(recipe.model, options.memoryBudget)
}

const wholeNumbers = [
  'maxTokensPerMicrobatch',
  'checkpointEvery',
  'maxLength',
  'threads',
  'steps',
  'maxExamplesPerUser',
] as const

/** One of a file and a data set of the hub. */
function requireData({ train, dataset }: TrainOptions): void {
  if (dataset !== undefined) {
    if (train === undefined && typeof dataset === 'string') return
    throw new DpMoeError('INVALID_ARGUMENT', 'Expected train or the name of a dataset, got both')
  }
  const isFile = (path: unknown) => typeof path === 'string'
  if (isFile(train) || (Array.isArray(train) && train.length > 0 && train.every(isFile))) return
  throw new DpMoeError('INVALID_ARGUMENT', `Expected a path for train, got ${String(train)}`)
}

/** What says how adapters are made changes nothing where there are none: a slip that would cost the budget. */
function requireAdapters(options: TrainOptions): void {
  if (options.trainable === 'lora') return
  const given = (['loraRank', 'loraAlpha', 'loraTargets', 'loraLayers'] as const).find(
    (name) => options[name] !== undefined,
  )
  if (given === undefined) return
  const got = options.trainable === undefined ? 'none' : `'${options.trainable}'`
  throw new DpMoeError('INVALID_ARGUMENT', `${given}: expected trainable 'lora' with it, got ${got}`)
}

function checkOptions(options: TrainOptions): void {
  const unknown = Object.keys(options).find((name) => !Object.hasOwn(trainOptionNames, name))
  if (unknown !== undefined) {
    const names = Object.keys(trainOptionNames).join(', ')
    throw new DpMoeError('INVALID_ARGUMENT', `There is no option '${unknown}'; the options are ${names}`)
  }
  if (typeof options.output !== 'string') {
    throw new DpMoeError('INVALID_ARGUMENT', `Expected a path for output, got ${String(options.output)}`)
  }
  requireData(options)
  for (const name of Object.keys(trainChoices) as (keyof typeof trainChoices)[]) {
    const values: readonly string[] = trainChoices[name]
    const value = options[name]
    if (value === undefined || values.includes(value)) continue
    throw new DpMoeError('INVALID_ARGUMENT', `${name}: expected ${values.join(', ')}, got '${String(value)}'`)
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
  requireAdapters(options)
  if (typeof options.validation === 'number' && options.relation === 'replace-one') {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      'validation: expected a file with relation replace-one, got a fraction; a text put in the place of another may fall ' +
        'on the other side, and change N',
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
