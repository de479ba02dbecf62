import { type DataSource, type Example, groupByUser, readExamples, splitByText } from '../data/index.js'
import type { Columns } from './columns.js'
import type { TrainOptions } from './options.js'

/** The examples of a run's files, divided. */
export interface Sides {
  /** Those of the training file, all of them. */
  readonly file: readonly Example[]
  readonly training: readonly Example[]
  /** First example of each user, and the number of examples, where units are users. */
  readonly unitOffsets: Int32Array | undefined
  readonly validation: readonly Example[] | undefined
  /** Training examples left out because their user had as many as are kept of one. */
  readonly leftOut: number
}

/** Examples kept of a user. */
export const defaultMaxExamplesPerUser = 16

/** Reads the training and validation data; every problem with a file is one error that names it and the line. */
export async function readSides(options: TrainOptions, columns: Columns): Promise<Sides> {
  const { group, validation } = options
  const read = { ...columns, ...(options.labelNames && { labelNames: options.labelNames }) }
  const file = await readExamples(options.train!, group === undefined ? read : { ...read, group })
  if (validation !== undefined && typeof validation !== 'number') {
    return { file, ...trainingSide(file, options), validation: await readExamples(validation, read) }
  }
  if (validation === undefined) return { file, ...trainingSide(file, options), validation: undefined }
  // A user is on one side with all they wrote.
  const split = splitByText(
    file.map((example) => example.group ?? example.text),
    validation,
  )
  const at = (positions: Int32Array) => Array.from(positions, (position) => file[position]!)
  return { file, ...trainingSide(at(split.training), options), validation: at(split.validation) }
}

/** The examples to train on, those of a user together and not too many. */
function trainingSide(
  examples: readonly Example[],
  { group, maxExamplesPerUser = defaultMaxExamplesPerUser }: TrainOptions,
): Pick<Sides, 'training' | 'unitOffsets' | 'leftOut'> {
  if (group === undefined) return { training: examples, unitOffsets: undefined, leftOut: 0 }
  const users = examples.map((example) => example.group!)
  const { order, unitOffsets, leftOut } = groupByUser(users, maxExamplesPerUser)
  return { training: Array.from(order, (position) => examples[position]!), unitOffsets, leftOut }
}

/** Where the validation examples are from, as errors name it. */
export function validationSource({ train, validation }: TrainOptions): DataSource {
  return validation === undefined || typeof validation === 'number' ? train! : validation
}

/** Number of units of privacy. */
export function unitsOf({ training, unitOffsets }: Sides): number {
  return unitOffsets === undefined ? training.length : unitOffsets.length - 1
}
