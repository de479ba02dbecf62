import type { Device } from '../../engine/device.js'
import { DpMoeError } from '../../errors.js'
import type { Checkpoint } from './checkpoint.js'
import { headPrefix } from './config.js'
import type { FusedExperts, TensorMap, TensorPlace } from './tensor-map.js'

/** Values are copied on their way to the device: it is waited for before more than this is under way. */
const MOST_BYTES_UNDER_WAY = 32 * 1024 * 1024

/** A tensor of a checkpoint and where it goes. */
interface Assignment {
  readonly name: string
  readonly place: TensorPlace | FusedExperts
}

/**
 * Fills a model from a checkpoint, one tensor at a time: beside the model there are never more than two tensors in memory, or
 * one and 32 MiB.
 * All names and shapes are checked before any weight is read.
 *
 * @param ownClasses how many classes the checkpoint's config.json has: a head for these is passed over where the model has one for others
 * @returns names of tensors that the checkpoint has not, or not for these classes, where it may (a new head)
 * @throws DpMoeError MODEL_FORMAT for an unexpected, missing or misshapen tensor, by name and with both shapes
 */
export async function loadWeights(
  map: TensorMap,
  checkpoint: Checkpoint,
  ownClasses: () => number = () => 0,
): Promise<string[]> {
  const { assignments, missing } = assign(map, checkpoint, ownClasses)
  const transposed = fusedOrientation(assignments, checkpoint)
  const written = new Set<TensorPlace>()
  // One buffer for all tensors: fresh memory for each would cost more than reading it.
  const sizes = assignments.map(({ name }) => elements(checkpoint.entry(name).shape))
  const memory = new ArrayBuffer(4 * sizes.reduce((most, size) => Math.max(most, size), 0))
  let underWay = 0
  for (const { name, place } of assignments) {
    const values = await checkpoint.readWeights(name, memory)
    if (underWay + values.byteLength > MOST_BYTES_UNDER_WAY) {
      await deviceOf(place).synchronize()
      underWay = 0
    }
    underWay += values.byteLength
    if ('parts' in place) {
      writeFused(place, values, transposed)
    } else if (written.has(place)) {
      await requireSame(name, values, place, checkpoint)
    } else {
      place.parameter.tensor.write(values, place.offset)
      written.add(place)
    }
  }
  return missing
}

function deviceOf(place: TensorPlace | FusedExperts): Device {
  return ('parts' in place ? place.parts[0]! : place.parameter).tensor.device
}

/** A second tensor for a tied parameter must be a copy of the first. */
async function requireSame(name: string, values: Float32Array, place: TensorPlace, { folder }: Checkpoint) {
  const present = await place.parameter.tensor.data()
  if (values.every((value, i) => Object.is(value, present[i]))) return
  throw new DpMoeError('MODEL_FORMAT', `${folder}: ${name} differs from the tensor that config.json ties it to`)
}

function assign(
  map: TensorMap,
  checkpoint: Checkpoint,
  ownClasses: () => number,
): { assignments: Assignment[]; missing: string[] } {
  const { folder } = checkpoint
  const assignments: Assignment[] = []
  const sources = new Map<string, string>()
  const cover = (name: string, source: string) => {
    const other = sources.get(name)
    if (other !== undefined && !map.isTied(name)) {
      throw new DpMoeError('MODEL_FORMAT', `${folder}: both ${other} and ${source} hold ${name}`)
    }
    sources.set(name, source)
  }
  const isOfOtherHead = otherHead(map, checkpoint, ownClasses)
  for (const name of checkpoint.names()) {
    const resolved = map.resolve(name)
    if (resolved === undefined || isOfOtherHead(resolved)) continue
    const { shape } = checkpoint.entry(name)
    const place = map.tensors.get(resolved)
    const fused = map.fused.get(resolved)
    if (!place && !fused) {
      throw new DpMoeError('MODEL_FORMAT', `${folder}: unexpected tensor ${name} ${spelled(shape)}`)
    }
    if (place && spelled(place.shape) !== spelled(shape)) {
      throw new DpMoeError(
        'MODEL_FORMAT',
        `${folder}: expected ${name} ${spelled(place.shape)}, got ${spelled(shape)}; do config.json and the weights belong together?`,
      )
    }
    for (const covered of fused?.covers ?? [resolved]) cover(covered, name)
    assignments.push({ name, place: (place ?? fused)! })
  }
  const missing = [...map.tensors].filter(([name]) => !sources.has(name))
  for (const [name, { shape, optional }] of missing) {
    if (!optional) throw new DpMoeError('MODEL_FORMAT', `${folder}: tensor ${name} ${spelled(shape)} is missing`)
  }
  return { assignments, missing: missing.map(([name]) => name) }
}

/** The tensors of a checkpoint's head where all of it is for the classes of its own config.json, and the model's for another number. */
function otherHead(map: TensorMap, checkpoint: Checkpoint, ownClasses: () => number): (tensor: string) => boolean {
  const isHead = (tensor: string | undefined) => tensor?.startsWith(headPrefix) && map.tensors.has(tensor)
  const held = Array.from(checkpoint.names()).filter((name) => isHead(map.resolve(name)))
  const isOther = held.every((name) => {
    const [classes, ...rest] = checkpoint.entry(name).shape
    const [wanted, ...expected] = map.tensors.get(map.resolve(name)!)!.shape
    return classes !== wanted && classes === ownClasses() && spelled(rest) === spelled(expected)
  })
  return (tensor) => held.length > 0 && isOther && tensor.startsWith(headPrefix)
}

/**
 * Whether fused tensors are stored [experts, columns, parts * rows]. One layer that is not square on both sides tells for
 * all of them; where none does, the shapes fit both ways and the checkpoint is refused.
 */
function fusedOrientation(assignments: readonly Assignment[], checkpoint: Checkpoint): boolean {
  const seen = new Set<boolean>()
  let square: string | undefined
  for (const { name, place } of assignments) {
    if (!('parts' in place)) continue
    const { shape } = checkpoint.entry(name)
    const rows = place.parts.length * place.rows
    const straight = spelled(shape) === spelled([place.experts, rows, place.columns])
    const transposed = spelled(shape) === spelled([place.experts, place.columns, rows])
    if (!straight && !transposed) {
      const expected = `${spelled([place.experts, rows, place.columns])} or ${spelled([place.experts, place.columns, rows])}`
      throw new DpMoeError(
        'MODEL_FORMAT',
        `${checkpoint.folder}: expected ${name} ${expected}, got ${spelled(shape)}; do config.json and the weights belong together?`,
      )
    }
    if (straight && transposed) square = name
    else seen.add(transposed)
  }
  if (seen.size > 1) {
    throw new DpMoeError('MODEL_FORMAT', `${checkpoint.folder}: some fused expert tensors are transposed, others not`)
  }
  if (seen.size === 0 && square !== undefined) {
    throw new DpMoeError(
      'MODEL_FORMAT',
      `${checkpoint.folder}: ${square} ${spelled(checkpoint.entry(square).shape)} is ambiguous, [experts, out, in] or ` +
        '[experts, in, out]; save the model with one tensor per expert',
    )
  }
  return seen.has(true)
}

function writeFused({ parts, experts, rows, columns }: FusedExperts, values: Float32Array, transposed: boolean): void {
  const size = rows * columns
  const matrix = transposed ? new Float32Array(size) : undefined
  for (let expert = 0; expert < experts; expert++) {
    parts.forEach((part, index) => {
      const first = expert * parts.length * size
      if (matrix) transposePart(values.subarray(first), parts.length * rows, index * rows, matrix, rows, columns)
      const straight = values.subarray(first + index * size, first + (index + 1) * size)
      part.tensor.write(matrix ?? straight, expert * size)
    })
  }
}

/** matrix [rows, columns] = columns `from` .. `from + rows` of values [columns, width], transposed. */
function transposePart(
  values: Float32Array,
  width: number,
  from: number,
  matrix: Float32Array,
  rows: number,
  columns: number,
): void {
  for (let row = 0; row < rows; row++) {
    for (let column = 0; column < columns; column++) {
      matrix[row * columns + column] = values[column * width + from + row]!
    }
  }
}

function elements(shape: readonly number[]): number {
  return shape.reduce((product, extent) => product * extent, 1)
}

function spelled(shape: readonly number[]): string {
  return `[${shape.join(', ')}]`
}
