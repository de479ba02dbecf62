import { existsSync, readFileSync, renameSync, writeFileSync } from 'node:fs'

/** What one step took. */
export interface StepTime {
  readonly seconds: number
  readonly processorSeconds: number
}

/** Times a run's steps in a file, so that those of a run that was stopped and goes on count once and all. */
export class StepClock {
  readonly #times: StepTime[]
  #last = now()

  /** `resume`: the run in `path` goes on; otherwise it begins. */
  constructor(
    readonly path: string,
    resume: boolean,
  ) {
    this.#times = resume && existsSync(path) ? (JSON.parse(readFileSync(path, 'utf8')) as StepTime[]) : []
  }

  /** Number of steps. */
  get steps(): number {
    return this.#times.length
  }

  /** `step`, from 1, has ended; a step that is made again takes the place of the first time. */
  ended(step: number): void {
    if (step > this.steps + 1)
      throw new Error(`${this.path}: the times of steps ${this.steps + 1} to ${step - 1} are lost`)
    const { seconds, processorSeconds } = now()
    this.#times[step - 1] = {
      seconds: seconds - this.#last.seconds,
      processorSeconds: processorSeconds - this.#last.processorSeconds,
    }
    this.#last = { seconds, processorSeconds }
    const written = `${this.path}.new`
    writeFileSync(written, JSON.stringify(this.#times))
    renameSync(written, this.path)
  }

  /** Of all steps together. */
  total(): StepTime {
    const sum = (of: (time: StepTime) => number) => this.#times.reduce((total, time) => total + of(time), 0)
    return { seconds: sum(({ seconds }) => seconds), processorSeconds: sum((time) => time.processorSeconds) }
  }
}

function now(): StepTime {
  const { user, system } = process.cpuUsage()
  return { seconds: performance.now() / 1000, processorSeconds: (user + system) / 1e6 }
}
