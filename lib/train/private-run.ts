import { join } from 'node:path'
import { DEFAULT_TOLERANCE } from '../accounting/index.js'
import { isHubName } from '../hub/index.js'
import type { Optimizer } from '../optim/optimizer.js'
import { type Certificate, createCertificate, writeCertificate } from '../privacy/certificate.js'
import type { Ledger } from '../privacy/ledger.js'
import type { LoadNoise } from '../privacy/load-noise.js'
import { PrivacyEngine } from '../privacy/privacy-engine.js'
import { spentEpsilon } from '../privacy/spent.js'
import { version } from '../version.js'
import type { PretrainedChoice } from './open-model.js'
import type { OpenRun } from './open-run.js'
import type { TrainOptions } from './options.js'
import type { PrivatePlan } from './private-plan.js'
import { privateSteps, type StepMaker } from './session.js'
import type { EncodedTask, Learner } from './task.js'

export interface PrivateRunParts {
  readonly encoded: EncodedTask
  readonly learner: Learner
  readonly optimizer: Optimizer
  readonly maxRows: number
  readonly plan: PrivatePlan
  readonly run: OpenRun
  readonly options: TrainOptions
  /** What training starts from, where it is not first weights from a public seed. */
  readonly pretrained: PretrainedChoice | undefined
  /** Where the units are users: what is kept of one. */
  readonly users?: { readonly maxExamples: number } | undefined
}

const PRETRAINED_NOT_COVERED =
  'The model that training started from (publicConstants.startsFrom): what it was trained on before, and what that cost in ' +
  'privacy, is not counted here.'

/** The SHA-256 of the weights, and the name where it is one on the hub: the path of a folder is nobody's business. */
function startOf({ name, fingerprint }: PretrainedChoice): Record<string, string> {
  return { ...(isHubName(name) && { name }), weights: fingerprint }
}

/** The private side of a run: steps recorded in the ledger, and the certificate made from it. */
export class PrivateRun {
  readonly maker: StepMaker
  /** How noisy the released loads of experts are, where the model has load estimates. */
  readonly loadNoise: LoadNoise | undefined
  readonly #plan: PrivatePlan
  readonly #ledger: Ledger
  readonly #seeded: boolean
  readonly #encoded: EncodedTask
  readonly #releases: Certificate['releases']
  readonly #users: PrivateRunParts['users']
  readonly #pretrained: PretrainedChoice | undefined
  readonly #options: TrainOptions

  constructor({ encoded, learner, optimizer, maxRows, plan, run, users, pretrained, options }: PrivateRunParts) {
    this.#plan = plan
    this.#ledger = run.ledger!
    this.#seeded = run.drawKey.source === 'seed'
    this.#encoded = encoded
    this.#users = users
    this.#pretrained = pretrained
    this.#options = options
    const engine = new PrivacyEngine({ relation: plan.relation, key: run.drawKey })
    const ledger = this.#ledger
    const { noiseMultiplier, sampleRate, steps, expectedBatchSize, recipe } = plan
    const mechanism = { noiseMultiplier, sampleRate }
    const made = engine.makePrivate({
      module: learner.model,
      optimizer,
      data: encoded.training,
      noiseMultiplier,
      sampleRate,
      steps,
      expectedBatchSize,
      maxGradNorm: recipe.maxGradNorm,
      clipping: recipe.clipping,
      recorder: { appendStep: (step) => ledger.append(step, mechanism) },
    })
    this.#releases = made.optimizer.releases
    this.loadNoise = made.loadNoise
    this.maker = privateSteps({ learner, maxRows }, made)
  }

  /** Upper bound on epsilon of what the ledger holds, and of the plan where that is more. */
  epsilon(): number {
    const { relation, delta, epsilon, steps } = this.#plan
    const spent = this.#ledger.summary.segments.flatMap((segment) =>
      segment.steps.map(({ noiseMultiplier, sampleRate, count }) => ({ noiseMultiplier, sampleRate, steps: count })),
    )
    if (this.#ledger.steps <= steps) return epsilon
    return Math.max(epsilon, spentEpsilon('pld', relation, spent, delta))
  }

  /** Writes certificate.json into the release folder. */
  async writeCertificate(folder: string): Promise<void> {
    const plan = this.#plan
    const { recipe } = plan
    const certificate = createCertificate({
      unit: this.#users ? 'user' : 'example',
      relation: plan.relation,
      noiseMultiplier: plan.noiseMultiplier,
      sampleRate: plan.sampleRate,
      expectedBatchSize: plan.expectedBatchSize,
      maxGradNorm: recipe.maxGradNorm,
      clipping: recipe.clipping,
      plannedSteps: plan.steps,
      steps: this.#ledger.steps,
      delta: plan.delta,
      epsilon: this.epsilon(),
      accountant: { name: 'pld', bound: 'upper', tolerance: DEFAULT_TOLERANCE },
      releases: this.#releases,
      publicConstants: this.#publicConstants(),
      notCovered: this.#pretrained ? [PRETRAINED_NOT_COVERED] : [],
      seeded: this.#seeded,
      software: { name: 'dp-moe', version },
      ledgerHash: this.#ledger.summary.hash,
    })
    await writeCertificate(join(folder, 'certificate.json'), certificate)
  }

  #publicConstants(): Certificate['publicConstants'] {
    const { relation, recipe } = this.#plan
    return {
      ...(relation !== 'add-or-remove-one' && { [this.#users ? 'users' : 'examples']: this.#encoded.training.length }),
      ...(this.#users && { maxExamplesPerUser: this.#users.maxExamples }),
      ...this.#encoded.publicConstants,
      maxLength: recipe.tokenizer.maxLength,
      vocabularySize: recipe.tokenizer.vocabularySize,
      model: { ...recipe.model },
      trainable: this.#options.trainable ?? 'all',
      ...(this.#pretrained && { startsFrom: startOf(this.#pretrained) }),
    }
  }
}
