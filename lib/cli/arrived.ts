import { setImmediate } from 'node:timers/promises'

/**
 * Groups what has arrived already, at most `most` at once: who writes a line and waits for its answer gets it, and a file is
 * read in large batches. An error comes after everything before it.
 */
export async function* arrived<T>(source: AsyncGenerator<T>, most: number): AsyncGenerator<T[]> {
  const ask = () => {
    const answer = source.next()
    answer.catch(() => {}) // it is looked at later, perhaps after it has failed
    return answer
  }
  let next = ask()
  for (;;) {
    const first = await next
    if (first.done) return
    const group = [first.value]
    next = ask()
    while (group.length < most) {
      const more = await Promise.race([next, setImmediate(undefined)]).catch(() => undefined)
      if (more === undefined || more.done) break
      group.push(more.value)
      next = ask()
    }
    yield group
  }
}
