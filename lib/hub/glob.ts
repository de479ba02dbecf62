import { DpMoeError } from '../errors.js'

/** Characters of a pattern. */
const MAX_LENGTH = 1024

/** Characters that the patterns of a card may look at in all paths together, about: a second or two. */
const MAX_STEPS = 2 ** 28

/** What one pattern and one path take at least, in such steps. */
const STEPS_OF_A_TEST = 8

/** The work that is left for the patterns of a card, which anyone may have written. */
export class GlobBudget {
  #left: number

  constructor(steps = MAX_STEPS) {
    this.#left = steps
  }

  /** @throws DpMoeError DATA_FORMAT, when it is used up */
  spend(steps: number): void {
    this.#left -= steps
    if (this.#left >= 0) return
    const message =
      'The patterns in the card of the data set take too long to match. Name files that hold the data instead'
    throw new DpMoeError('DATA_FORMAT', message)
  }
}

/**
 * Whether a path matches one of several patterns with `*` (within a folder), `**`, `?` and `[...]`.
 *
 * @throws DpMoeError DATA_FORMAT, for a pattern of more than 1,024 characters, and from the test where `budget` is used up
 */
export function globTest(globs: readonly string[], budget: GlobBudget): (path: string) => boolean {
  const plain = new Set<string>()
  const matchers: ((path: string) => boolean)[] = []
  for (const glob of globs) {
    if (glob.length > MAX_LENGTH) throw tooLong(glob)
    const [first = '', ...rest] = partsOf(glob.replace(/^\.\//, ''))
    if (rest.length === 0 && !isWild(first)) plain.add(first)
    else matchers.push(matcher(first, rest, budget))
  }
  return (path) => {
    budget.spend(STEPS_OF_A_TEST)
    return plain.has(path) || matchers.some((matches) => matches(path))
  }
}

function tooLong(glob: string): DpMoeError {
  const message = `A pattern in the card of the data set has ${glob.length} characters, expected at most ${MAX_LENGTH}`
  return new DpMoeError('DATA_FORMAT', `${message}. Name files that hold the data instead`)
}

/** Runs of stars are as good as one of them. */
function partsOf(glob: string): string[] {
  const parts: string[] = []
  for (const part of glob.split(/(\*\*\/|\*\*|\*|\?|\[[^\]]+\])/)) {
    const last = parts.at(-1)
    const isRun = (last === '**' && ['*', '**', '**/'].includes(part)) || (last === '**/' && part === '**/')
    if (part !== '' && !isRun) parts.push(part)
  }
  return parts
}

const isWild = (part: string) => ['**', '**/', '*', '?'].includes(part) || /^\[.+\]$/s.test(part)

/** The places where the parts of a pattern up to here may end in a path: 1 at their index, else 0, [length + 1]. */
type Ends = Uint8Array

type Step = (path: string, ends: Ends) => Ends

function matcher(first: string, rest: readonly string[], budget: GlobBudget): (path: string) => boolean {
  const prefix = isWild(first) ? '' : first
  const parts = isWild(first) ? [first, ...rest] : rest
  const steps = parts.map((part) => ({ run: stepOf(part), weight: isWild(part) ? part.length : 1 + part.length / 4 }))
  return (path) => {
    budget.spend(STEPS_OF_A_TEST)
    if (!path.startsWith(prefix)) return false
    let ends: Ends = new Uint8Array(path.length + 1)
    ends[prefix.length] = 1
    for (const { run, weight } of steps) {
      budget.spend(weight * ends.length)
      ends = run(path, ends)
      if (!ends.includes(1)) return false
    }
    return ends[path.length] === 1
  }
}

/** Each looks at every place once. */
function stepOf(part: string): Step {
  if (part === '**') return (_, ends) => ends.fill(1, ends.indexOf(1))
  if (part === '**/') return folders
  if (part === '*') return withinFolder
  if (part === '?') return oneCharacter((character) => character !== '/')
  if (isWild(part)) return oneCharacter(isOneOf(part.slice(1, -1)))
  return literal(part)
}

function folders(path: string, ends: Ends): Ends {
  for (let end = ends.indexOf(1) + 1; end < ends.length; end++) if (path[end - 1] === '/') ends[end] = 1
  return ends
}

function withinFolder(path: string, ends: Ends): Ends {
  for (let end = 1; end < ends.length; end++) if (ends[end - 1] === 1 && path[end - 1] !== '/') ends[end] = 1
  return ends
}

function oneCharacter(fits: (character: string) => boolean): Step {
  return (path, ends) => {
    const next = new Uint8Array(ends.length)
    for (let end = 1; end < ends.length; end++) if (ends[end - 1] === 1 && fits(path[end - 1]!)) next[end] = 1
    return next
  }
}

function literal(text: string): Step {
  return (path, ends) => {
    const next = new Uint8Array(ends.length)
    for (let start = 0; start + text.length < ends.length; start++)
      if (ends[start] === 1 && path.startsWith(text, start)) next[start + text.length] = 1
    return next
  }
}

/** Whether a character is in a set such as `0-9` or `!a`. */
function isOneOf(set: string): (character: string) => boolean {
  const not = set.startsWith('!')
  const ranges = (not ? set.slice(1) : set).match(/.-.|./gs) ?? []
  return (character) => ranges.some((range) => range[0]! <= character && character <= range.at(-1)!) !== not
}
