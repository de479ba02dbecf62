import { DpMoeError } from '../errors.js'
import { warn } from './output.js'

const SIGNALS = ['SIGINT', 'SIGTERM'] as const

/**
 * Runs `work` so that the first SIGINT or SIGTERM only asks it to stop; a second one ends the process at once.
 *
 * @param answer what the first one is answered with
 */
export async function untilInterrupted<T>(work: (signal: AbortSignal) => Promise<T>, answer: string): Promise<T> {
  const controller = new AbortController()
  const stop = (name: NodeJS.Signals) => {
    removeHandlers()
    warn(answer)
    controller.abort(new DpMoeError('ABORTED', `Interrupted (${name})`))
  }
  const removeHandlers = () => {
    for (const name of SIGNALS) process.off(name, stop)
  }
  for (const name of SIGNALS) process.on(name, stop)
  try {
    return await work(controller.signal)
  } finally {
    removeHandlers()
  }
}
