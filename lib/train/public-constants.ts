import { createHash } from 'node:crypto'
import type { Tokenizer } from '../data/index.js'
import { isHubName } from '../hub/index.js'
import { defaultAlpha, defaultRank } from '../nn/low-rank-adapter.js'
import { defaultAdapterTargets } from '../nn/trainable.js'
import type { Certificate } from '../privacy/certificate.js'
import type { PretrainedChoice } from './open-model.js'
import type { TrainOptions } from './options.js'
import type { PrivatePlan } from './private-plan.js'
import type { EncodedTask } from './task.js'

type PublicConstants = Certificate['publicConstants']

export interface StatedParts {
  readonly plan: PrivatePlan
  readonly options: TrainOptions
  readonly encoded: EncodedTask
  /** What training starts from, where it is not first weights from a public seed. */
  readonly pretrained: PretrainedChoice | undefined
  /** Where the units are users: what is kept of one. */
  readonly users?: { readonly maxExamples: number } | undefined
}

/** All that a certificate states as public: what a reader needs to make the same model from the same data. */
export function publicConstants({ plan, options, encoded, pretrained, users }: StatedParts): PublicConstants {
  const { relation, recipe } = plan
  const { validation, trainable = 'all', release } = options
  return {
    ...(relation !== 'add-or-remove-one' && { [users ? 'users' : 'examples']: encoded.training.length }),
    ...(users && { maxExamplesPerUser: users.maxExamples }),
    ...(typeof validation === 'number' && { validationFraction: validation }),
    ...encoded.publicConstants,
    maxLength: recipe.tokenizer.maxLength,
    tokenizer: describedTokenizer(encoded.tokenizer),
    model: { ...recipe.model },
    trainable,
    ...(trainable === 'lora' && { adapters: statedAdapters(options) }),
    ...(release !== undefined && { release }),
    ...(pretrained && { startsFrom: startOf(pretrained) }),
  }
}

/** What this run leaves out, beside what every run does. */
export function notCovered({ options, pretrained }: Pick<StatedParts, 'options' | 'pretrained'>): string[] {
  return [
    ...(options.keyFile === undefined ? [] : [KEY_FILE]),
    ...(pretrained ? [PRETRAINED] : []),
    ...(options.tokenizer === undefined ? [] : [TOKENIZER]),
  ]
}

const KEY_FILE =
  'The key file that noise and sampling come from: whoever gets it can take the noise away. The guarantee holds while it is ' +
  'secret, and for good once it is destroyed.'

const PRETRAINED =
  'The model that training started from (publicConstants.startsFrom): what it was trained on before, and what that cost in ' +
  'privacy, is not counted here.'

const TOKENIZER =
  'The tokenizer (publicConstants.tokenizer), which is part of the release as it was given: what it was made from, and what ' +
  'that gives away, is not counted here.'

/** The hash is of its tokenizer.json without white space. */
function describedTokenizer(tokenizer: Tokenizer): PublicConstants {
  const { vocabularySize } = tokenizer
  const json = tokenizer.toJSON()
  if (json.type === 'word-hash') return { type: json.type, vocabularySize, ngrams: json.ngrams }
  const sha256 = createHash('sha256').update(JSON.stringify(json.tokenizer)).digest('hex')
  return { type: json.type, vocabularySize, sha256 }
}

function statedAdapters({
  loraRank = defaultRank,
  loraAlpha = defaultAlpha,
  loraTargets = defaultAdapterTargets,
  loraLayers,
}: TrainOptions): PublicConstants {
  const adapters = { rank: loraRank, alpha: loraAlpha, targets: [...loraTargets] }
  return loraLayers === undefined ? adapters : { ...adapters, layers: [...loraLayers] }
}

/** The SHA-256 of the weights, and the name where it is one on the hub: the path of a folder is nobody's business. */
function startOf({ name, fingerprint, settings }: PretrainedChoice): PublicConstants {
  return { ...(isHubName(name) && { name }), weights: fingerprint, ...settings }
}
