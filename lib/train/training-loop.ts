import { DpMoeError } from '../errors.js'
import type { Telemetry } from '../nn/telemetry.js'
import type { OpenRun } from './open-run.js'
import type { TrainOptions } from './options.js'
import { saveCheckpoint } from './run-state.js'
import type { StepMaker } from './session.js'

export interface TrainingLoopParts {
  readonly options: TrainOptions
  readonly run: OpenRun
  readonly steps: number
  readonly maker: StepMaker
  readonly telemetry: Telemetry
  /** Budget spent after a number of steps; undefined without privacy. */
  readonly epsilonAt: ((steps: number) => number) | undefined
}

/** Weight of the newest loss in the smoothed one. */
const smoothing = 0.1

/** Makes the steps that are left, with metrics, progress and checkpoints; between steps it can be stopped. */
export async function trainingLoop({
  options,
  run,
  steps,
  maker,
  telemetry,
  epsilonAt,
}: TrainingLoopParts): Promise<void> {
  const every = options.checkpointEvery ?? Math.max(1, Math.ceil(steps / 10))
  const started = performance.now()
  let smoothed: number | undefined
  let seen = 0
  for (let step = run.firstStep; step < steps; step++) {
    if (options.signal?.aborted) {
      await saveCheckpoint(run.state, step)
      throw new DpMoeError('ABORTED', `Stopped before step ${step} of ${steps}; go on with --resume`)
    }
    const statistics = await maker.step(step, telemetry)
    seen += statistics.units
    if (Number.isFinite(statistics.loss)) {
      smoothed = smoothed === undefined ? statistics.loss : smoothed + smoothing * (statistics.loss - smoothed)
    }
    const loads = (step + 1) % every === 0 ? { expertLoads: await telemetry.takeExpertLoads() } : {}
    run.metrics.append({ step, ...statistics, ...loads })
    const done = step + 1
    if (done % every === 0 || done === steps) await saveCheckpoint(run.state, done)
    const seconds = (performance.now() - started) / 1000
    options.onProgress?.({
      step: done,
      steps,
      loss: smoothed ?? Number.NaN,
      examplesPerSecond: seen / seconds,
      epsilon: epsilonAt?.(done),
      secondsLeft: (seconds / (done - run.firstStep)) * (steps - done),
    })
  }
  await run.metrics.flush()
}
