import { DpMoeError, invalid } from '../errors.js'
import type { LabelledExample } from './readers.js'
import { type DataSource, dataError } from './text-blocks.js'

/** More classes than this, found in a file, mean that the wrong column was named. */
const MOST_CLASSES_FOUND = 1000

/** How many known labels an error lists. */
const LABELS_LISTED = 20

/** The classes of a task: a label's position is its class index. */
export class LabelSet {
  readonly names: readonly string[]
  /** True when the list was stated by the user; false when it was read off the data, and so is treated as public. */
  readonly stated: boolean
  readonly #indices: Map<string, number>

  /** @throws DpMoeError unless there are two or more different, non-empty names */
  constructor(names: readonly string[], stated = true) {
    this.names = names.map((name) => name.trim())
    this.stated = stated
    this.#indices = new Map(this.names.map((name, index) => [name, index]))
    if (this.names.length < 2 || this.#indices.size < this.names.length || this.#indices.has('')) {
      const shown = this.names.map((name) => `'${name}'`).join(', ')
      throw new DpMoeError('INVALID_ARGUMENT', invalid('labels', 'two or more different names', `[${shown}]`))
    }
  }

  get size(): number {
    return this.names.length
  }

  /** Class index of a label, or undefined for a label that is not in the set. */
  indexOf(label: string): number | undefined {
    return this.#indices.get(label)
  }
}

/**
 * The labels found in a file, sorted: as numbers when all are integers, else by code units.
 *
 * @throws DpMoeError when there is only one class, or so many that the column cannot be a label
 */
export function labelsFound(examples: readonly LabelledExample[], source: DataSource): LabelSet {
  const names = [...new Set(examples.map((example) => example.label))]
  if (names.length > MOST_CLASSES_FOUND) {
    const remedy = 'Name the label column, or state the labels'
    throw dataError(source, undefined, `the label column holds ${names.length} different labels. ${remedy}`)
  }
  if (names.length < 2) throw oneClass(names, source)
  return new LabelSet(sortLabels(names), false)
}

/** Sorts labels: as numbers when all are integers, else by code units. The same on every machine, whatever its locale. */
export function sortLabels(names: readonly string[]): string[] {
  const byCodeUnits = (a: string, b: string) => (a < b ? -1 : a > b ? 1 : 0)
  if (!names.every((name) => /^[+-]?\d{1,15}$/.test(name))) return [...names].sort(byCodeUnits)
  return [...names].sort((a, b) => Number(a) - Number(b) || byCodeUnits(a, b))
}

/**
 * Class index of each example [N].
 *
 * @throws DpMoeError naming the line of the first label that is not in the set, and the labels that are
 */
export function encodeLabels(examples: readonly LabelledExample[], labels: LabelSet, source: DataSource): Int32Array {
  return Int32Array.from(examples, ({ label, line, file }) => {
    const index = labels.indexOf(label)
    if (index === undefined) {
      throw dataError(
        file ?? source,
        line,
        `the label '${label}' is unknown; ${known(labels)}. Correct it, remove the row, or add it to the stated labels before training`,
      )
    }
    return index
  })
}

/**
 * Throws when all examples have one class: there would be nothing to learn.
 *
 * @param classes class index of each example [N]
 */
export function requireSeveralClasses(classes: Int32Array, labels: LabelSet, source: DataSource): void {
  if (classes.some((value) => value !== classes[0])) return
  throw oneClass(classes.length === 0 ? [] : [labels.names[classes[0]!]!], source)
}

function oneClass(names: readonly string[], source: DataSource): DpMoeError {
  const found = names.length === 0 ? 'there are no labels' : `every row has the label '${names[0]}'`
  return dataError(source, undefined, `${found}. Training needs rows of two classes or more`)
}

function known(labels: LabelSet): string {
  const more = labels.size > LABELS_LISTED ? ` and ${labels.size - LABELS_LISTED} more` : ''
  const listed = labels.names.slice(0, LABELS_LISTED).map((name) => `'${name}'`)
  return `the known labels are ${listed.join(', ')}${more}`
}
