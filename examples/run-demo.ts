import { exitCodeOf, failureLine } from '../lib/cli/failure.js'
import { untilInterrupted } from '../lib/cli/interrupt.js'
import { finish, ignoreClosedPipes, warn } from '../lib/cli/output.js'
import { progressView } from '../lib/cli/progress.js'
import { DpMoeError, type TrainOptions, type TrainResult, train } from '../lib/index.js'

/**
 * Runs a demo as the command line runs a command, and ends the process: Ctrl-C stops after the step, an error is one line.
 *
 * @param answer what Ctrl-C is answered with
 */
export async function runDemo(work: (signal: AbortSignal) => Promise<void>, answer: string): Promise<never> {
  ignoreClosedPipes()
  let exitCode = 0
  try {
    await untilInterrupted(work, answer)
  } catch (error) {
    exitCode = exitCodeOf(error)
    const isStop = error instanceof DpMoeError && error.code === 'ABORTED'
    warn(isStop ? 'Stopped.' : failureLine(error, false))
  }
  return await finish(exitCode)
}

/** Trains, with a bar where there is a terminal. */
export async function trainWithView(title: string, options: TrainOptions): Promise<TrainResult> {
  const view = progressView({ bar: process.stderr.isTTY, title })
  try {
    return await train({
      ...options,
      onProgress: (progress) => view.update(progress),
      onMessage: (message) => view.message(message),
    })
  } finally {
    view.stop()
  }
}
