import { OutOfRangeError } from '../errors.js'

/** Factor on the learning rate at a step, counted from 0. */
export type Schedule = (step: number) => number

export type ScheduleName = 'constant' | 'linear' | 'cosine' | 'stable-decay'

/**
 * Rises linearly over the first `warmupSteps`, then stays (constant), falls linearly to 0 (linear), along a half cosine
 * to 0 (cosine), or stays for half of the rest and then falls linearly to 0 (stable-decay), at `steps`. Depends on step numbers only, so it is public.
 */
export function schedule(name: ScheduleName, steps: number, warmupSteps = 0): Schedule {
  if (!(Number.isInteger(steps) && steps >= 1)) throw new OutOfRangeError('steps', 'an integer >= 1', steps)
  if (!(Number.isInteger(warmupSteps) && warmupSteps >= 0 && warmupSteps <= steps)) {
    throw new OutOfRangeError('warmupSteps', `an integer in [0, ${steps}]`, warmupSteps)
  }
  return (step) => {
    if (step < warmupSteps) return (step + 1) / warmupSteps
    const progress = Math.min(1, (step - warmupSteps) / Math.max(1, steps - warmupSteps))
    if (name === 'linear') return 1 - progress
    if (name === 'cosine') return (1 + Math.cos(Math.PI * progress)) / 2
    if (name === 'stable-decay') return Math.min(1, 2 * (1 - progress))
    return 1
  }
}
