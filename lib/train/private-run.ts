import { join } from 'node:path'
import { DEFAULT_TOLERANCE } from '../accounting/index.js'
import { certificateFile } from '../models/model-folder.js'
import type { Optimizer } from '../optim/optimizer.js'
import { type Certificate, createCertificate, writeCertificate } from '../privacy/certificate.js'
import type { Ledger } from '../privacy/ledger.js'
import type { LoadNoise } from '../privacy/load-noise.js'
import { PrivacyEngine } from '../privacy/privacy-engine.js'
import { spentEpsilon } from '../privacy/spent.js'
import { version } from '../version.js'
import type { OpenRun } from './open-run.js'
import type { PrivatePlan } from './private-plan.js'
import { notCovered, publicConstants, type StatedParts } from './public-constants.js'
import { privateSteps, type StepMaker } from './session.js'
import type { Learner } from './task.js'

export interface PrivateRunParts extends StatedParts {
  readonly learner: Learner
  readonly optimizer: Optimizer
  readonly maxRows: number
  readonly run: OpenRun
}

/** The private side of a run: steps recorded in the ledger, and the certificate made from it. */
export class PrivateRun {
  readonly maker: StepMaker
  /** How noisy the released loads of experts are, where the model has load estimates. */
  readonly loadNoise: LoadNoise | undefined
  readonly #plan: PrivatePlan
  readonly #ledger: Ledger
  readonly #seeded: boolean
  readonly #releases: Certificate['releases']
  readonly #stated: StatedParts

  constructor({ learner, optimizer, maxRows, run, ...stated }: PrivateRunParts) {
    const { plan, encoded } = stated
    this.#plan = plan
    this.#ledger = run.ledger!
    this.#seeded = run.drawKey.source === 'seed'
    this.#stated = stated
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
    // What cannot be stated is refused before anything is spent.
    this.#certificate()
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
    await writeCertificate(join(folder, certificateFile), this.#certificate())
  }

  /** Of what the ledger holds now. */
  #certificate(): Certificate {
    const plan = this.#plan
    const { recipe } = plan
    return createCertificate({
      unit: this.#stated.users ? 'user' : 'example',
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
      publicConstants: publicConstants(this.#stated),
      notCovered: notCovered(this.#stated),
      seeded: this.#seeded,
      software: { name: 'dp-moe', version },
      ledgerHash: this.#ledger.summary.hash,
    })
  }
}
