import { DpMoeError, invalid } from '../errors.js'
import { damaged, type LedgerEntry, type RunEntry, type StepMechanism } from './ledger-format.js'

/** Consecutive steps of one mechanism, for an accountant to compose. */
export interface StepGroup extends StepMechanism {
  /** Number of the first of them, from 0. */
  readonly firstStep: number
  readonly count: number
}

/** The steps made with one noise key. */
export interface LedgerSegment {
  /** From 1; a segment is added when a run resumes with a fresh key. */
  readonly segment: number
  /** The `nextStep` of the checkpoint it went on from; 0 in the first segment. */
  readonly checkpointStep: number
  readonly steps: readonly StepGroup[]
}

/** What a ledger says. */
export interface LedgerSummary {
  readonly run: RunEntry
  readonly segments: readonly LedgerSegment[]
  /** Steps spent: the sum over the segments. */
  readonly steps: number
  readonly ended: boolean
  /** Hash of the last whole line. */
  readonly hash: string
}

interface OpenSegment extends LedgerSegment {
  readonly steps: { noiseMultiplier: number; sampleRate: number; firstStep: number; count: number }[]
}

/** The entries of a ledger in their order, and which entry may come next. */
export class LedgerHistory {
  readonly #path: string
  readonly #run: RunEntry
  readonly #segments: OpenSegment[] = [{ segment: 1, checkpointStep: 0, steps: [] }]
  readonly #recovered = new Set<number>()
  #lines = 1
  #steps = 0
  #ended = false

  private constructor(path: string, run: RunEntry) {
    this.#path = path
    this.#run = run
  }

  /** @throws DpMoeError LEDGER_DAMAGED when the entries do not follow from each other */
  static of(path: string, entries: readonly LedgerEntry[]): LedgerHistory {
    const [run, ...rest] = entries
    if (run?.type !== 'run') throw damaged(path, 1, 'is not the entry of a run')
    const history = new LedgerHistory(path, run)
    for (const entry of rest) {
      history.check(entry)
      history.add(entry)
    }
    return history
  }

  get steps(): number {
    return this.#steps
  }

  get ended(): boolean {
    return this.#ended
  }

  summary(hash: string): LedgerSummary {
    const segments = this.#segments.map(({ steps, ...facts }) => ({
      ...facts,
      steps: steps.map((group) => ({ ...group })),
    }))
    return { run: this.#run, segments, steps: this.#steps, ended: this.#ended, hash }
  }

  /** @throws DpMoeError LEDGER_DAMAGED when `entry` cannot be the next line */
  check(entry: LedgerEntry): void {
    const line = this.#lines + 1
    if (this.#ended) throw damaged(this.#path, line, 'comes after the end of the run')
    if (entry.type === 'run') throw damaged(this.#path, line, 'starts a second run')
    if (entry.type === 'segment') {
      const expected = this.#segments.length + 1
      if (entry.segment !== expected) {
        throw damaged(this.#path, line, `starts segment ${entry.segment}, and segment ${expected} was due`)
      }
    } else if (entry.type === 'end') {
      if (entry.steps !== this.#steps) {
        throw damaged(this.#path, line, `ends after ${entry.steps} steps, and ${this.#steps} are recorded`)
      }
    } else if (entry.step !== this.#steps) {
      throw damaged(this.#path, line, `records step ${entry.step}, and step ${this.#steps} was due`)
    }
  }

  /** Adds an entry that {@link check} accepted. */
  add(entry: LedgerEntry): void {
    this.#lines++
    if (entry.type === 'step' || entry.type === 'recovered') this.#addStep(entry)
    else if (entry.type === 'segment') {
      this.#segments.push({ segment: entry.segment, checkpointStep: entry.checkpointStep, steps: [] })
    } else if (entry.type === 'end') this.#ended = true
  }

  /** The entry that counts a torn line as a step, with the costliest mechanism the run has named. */
  recoveredEntry(): LedgerEntry {
    const mechanisms: StepMechanism[] = [this.#run, ...this.#segments.flatMap(({ steps }) => steps)]
    return {
      type: 'recovered',
      step: this.#steps,
      noiseMultiplier: mechanisms.reduce((least, { noiseMultiplier }) => Math.min(least, noiseMultiplier), Infinity),
      sampleRate: mechanisms.reduce((most, { sampleRate }) => Math.max(most, sampleRate), 0),
    }
  }

  /**
   * Whether `step` is recorded already and may be redone; false when it is the next one to record.
   *
   * @throws DpMoeError when it is neither, or was recorded with another mechanism
   */
  isRedone(step: number, mechanism: StepMechanism): boolean {
    if (!Number.isSafeInteger(step) || step < 0 || step > this.#steps) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        invalid('step', `a whole number from 0 to ${this.#steps}, the next one`, step),
      )
    }
    if (step === this.#steps) {
      this.#checkOpen()
      this.#checkBudget(step)
      return false
    }
    if (this.#run.key === 'os') {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `Step ${step} is spent already (${this.#path} holds ${this.#steps} steps), and its noise cannot be drawn again: ` +
          `a run with a key of the operating system goes on at step ${this.#steps}`,
      )
    }
    const recorded = this.#mechanismOf(step)
    // A recovered entry holds the costliest mechanism, because the torn one could not be read.
    const fits = this.#recovered.has(step)
      ? recorded.noiseMultiplier <= mechanism.noiseMultiplier && recorded.sampleRate >= mechanism.sampleRate
      : recorded.noiseMultiplier === mechanism.noiseMultiplier && recorded.sampleRate === mechanism.sampleRate
    if (!fits) {
      throw new DpMoeError(
        'LEDGER_DAMAGED',
        `Step ${step} is recorded in ${this.#path} with noiseMultiplier ${recorded.noiseMultiplier} and sampleRate ` +
          `${recorded.sampleRate}, and is being redone with ${mechanism.noiseMultiplier} and ${mechanism.sampleRate}. ` +
          'Resume with the configuration the run was started with',
      )
    }
    return true
  }

  /** @throws DpMoeError INVALID_ARGUMENT when the run replays its steps, or the checkpoint is ahead of the ledger */
  nextSegment(checkpointStep: number): number {
    this.#checkOpen()
    if (this.#run.key !== 'os') {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        `${this.#path} belongs to a run whose steps are redone on resume (key: ${this.#run.key}); it has one segment`,
      )
    }
    if (!Number.isSafeInteger(checkpointStep) || checkpointStep < 0 || checkpointStep > this.#steps) {
      throw new DpMoeError(
        'INVALID_ARGUMENT',
        invalid('checkpointStep', `a whole number from 0 to the ${this.#steps} recorded steps`, checkpointStep),
      )
    }
    return this.#segments.length + 1
  }

  #addStep({ type, step, noiseMultiplier, sampleRate }: StepMechanism & { type: string; step: number }): void {
    if (type === 'recovered') this.#recovered.add(step)
    const groups = this.#segments.at(-1)!.steps
    const last = groups.at(-1)
    if (last?.noiseMultiplier === noiseMultiplier && last.sampleRate === sampleRate) last.count++
    else groups.push({ noiseMultiplier, sampleRate, firstStep: step, count: 1 })
    this.#steps = step + 1
  }

  #checkOpen(): void {
    if (!this.#ended) return
    throw new DpMoeError('INVALID_ARGUMENT', `The run of ${this.#path} has ended. To train further, start a new run`)
  }

  #checkBudget(step: number): void {
    if (step < this.#run.plannedSteps) return
    throw new DpMoeError(
      'BUDGET_EXCEEDED',
      `The run was planned for ${this.#run.plannedSteps} steps, and all are spent. Its model is final; ` +
        'to train further, start a new run and add up what both spend',
    )
  }

  #mechanismOf(step: number): StepMechanism {
    for (const { steps } of this.#segments) {
      for (const group of steps) if (step < group.firstStep + group.count) return group
    }
    throw damaged(this.#path, this.#lines, `holds no step ${step}`)
  }
}
