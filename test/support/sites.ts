import { createHash } from 'node:crypto'
import type { StepRandom } from '../../lib/autograd/elementwise.js'
import type { UnitLayout } from '../../lib/autograd/layout.js'
import { type GradientSink, type GradientSite, SumSink, tensorsOf } from '../../lib/autograd/sinks.js'
import { Tape, type TapeOptions } from '../../lib/autograd/tape.js'
import type { Device } from '../../lib/engine/device.js'
import type { Tensor } from '../../lib/engine/tensor.js'
import type { LossFunction, UnitBatch } from '../../lib/nn/accumulate.js'
import type { Module } from '../../lib/nn/module.js'
import { ClippedSumSink } from '../../lib/privacy/clipped-sum-sink.js'
import { keyTensor, seedKey } from '../../lib/privacy/keys.js'

/** A model, its loss and one way to make a batch. */
export interface Subject<E, B extends UnitBatch> {
  readonly device: Device
  readonly module: Module
  readonly loss: LossFunction<B>
  readonly batch: (units: readonly E[]) => B
  /** Of the tape that backward runs on. */
  readonly tape?: TapeOptions
}

/** A sink that puts every site into `sites`. */
export function collecting(sites: GradientSite[]): GradientSink {
  return {
    add(site) {
      sites.push(site)
      return tensorsOf(site)
    },
  }
}

/** Keys dropout and jitter as step 5 of a run would. */
export function stepRandom(device: Device): StepRandom {
  return { key: keyTensor(device, seedKey('sites')), step: 5 }
}

function backward<E, B extends UnitBatch>(
  { device, loss, batch, tape: options }: Subject<E, B>,
  units: readonly E[],
  random: StepRandom,
  sinkFor: (layout: UnitLayout) => GradientSink,
): void {
  const made = batch(units)
  const tape = new Tape(device, sinkFor(made.layout), options)
  tape.backward(loss(made, { tape, training: true, random }))
}

/** Squared gradient norms of each unit by parameter, in training (dropout and jitter act). */
export async function squaredNormsByParameter<E, B extends UnitBatch>(
  subject: Subject<E, B>,
  units: readonly E[],
  random: StepRandom,
): Promise<Map<string, number[]>> {
  const { device, module } = subject
  const parameters = module.trainableParameters()
  const release = 'gradient' as const
  const groups = parameters.map((parameter) => ({ name: parameter.name, parameters: [parameter], bound: 1, release }))
  const norms = await device.scope(() => {
    const statistics = device.zeros([groups.length, 3], { dtype: 'float64' })
    const clipping = { mode: 'per-layer', maxGradNorm: Math.sqrt(groups.length), groups } as const
    const sink = new ClippedSumSink(device, clipping, units.length, statistics)
    backward(subject, units, random, () => sink)
    return sink.squaredNorms().data()
  })
  return new Map(
    parameters.map((parameter, group) => [
      parameter.name,
      units.map((_, u) => Number(norms[group * units.length + u])),
    ]),
  )
}

/** The plain gradient sum of a batch by parameter, in training; the gradient buffers are cleared. */
export async function plainGradients<E, B extends UnitBatch>(
  subject: Subject<E, B>,
  units: readonly E[],
  random: StepRandom,
): Promise<Map<string, Float64Array>> {
  const { device, module } = subject
  device.scope(() => backward(subject, units, random, () => new SumSink()))
  const gradients = new Map<string, Float64Array>()
  for (const parameter of module.trainableParameters()) {
    gradients.set(parameter.name, Float64Array.from((await parameter.gradient.data()) as Float32Array))
    parameter.gradient.fill(0)
  }
  return gradients
}

/** Squared gradient norms of each unit by parameter by brute force: one unit at a time, its gradient written out. */
export async function writtenSquaredNorms<E, B extends UnitBatch>(
  subject: Subject<E, B>,
  units: readonly E[],
  random: StepRandom,
): Promise<Map<string, number[]>> {
  const norms = new Map<string, number[]>(subject.module.trainableParameters().map(({ name }) => [name, []]))
  for (const unit of units) {
    for (const [name, gradient] of await plainGradients(subject, [unit], random)) {
      norms.get(name)!.push(gradient.reduce((sum, value) => sum + value * value, 0))
    }
  }
  return norms
}

/**
 * Everything that backward hands over about the unit at position `index` of a batch: at each gradient site its rows of
 * the input, of the output gradient and of the ids, in order of expert and row. A digest of the bits, by site.
 */
export async function rowsOfUnit<E, B extends UnitBatch>(
  subject: Subject<E, B>,
  units: readonly E[],
  index: number,
  random: StepRandom,
): Promise<Map<string, string>> {
  const sites: GradientSite[] = []
  return subject.device.scopeAsync(async () => {
    backward(subject, units, random, () => collecting(sites))
    const found = new Map<string, string>()
    for (const [number, site] of sites.filter((site) => hasUnit(site, index)).entries()) {
      const name = `${number} ${site.parameter.name} ${site.kind}`
      for (const [part, tensor, rows] of await parts(site, index))
        found.set(`${name} ${part}`, await digest(tensor, rows))
    }
    return found
  })
}

function hasUnit(site: GradientSite, index: number): boolean {
  if (site.kind === 'perUnit') return index - (site.firstUnit ?? 0) >= 0 && index - (site.firstUnit ?? 0) < site.units
  const first = site.kind === 'linear' ? (site.firstUnit ?? 0) : 0
  return index >= first && index - first < site.segments.units
}

async function parts(site: GradientSite, place: number): Promise<(readonly [string, Tensor, number[]])[]> {
  const first = site.kind === 'linear' || site.kind === 'perUnit' ? (site.firstUnit ?? 0) : 0
  const index = place - first
  if (site.kind === 'perUnit') return [['gradient', site.gradient, [index]]]
  const { offsets, segments, units } = site.segments
  const bounds = (await offsets.data()) as Int32Array
  const rows: number[] = []
  for (let segment = index; segment < segments; segment += units) {
    for (let row = bounds[segment]!; row < bounds[segment + 1]!; row++) rows.push(row)
  }
  if (site.kind === 'bias') return [['dy', site.dy, rows]]
  if (site.kind === 'embedding')
    return [
      ['dy', site.dy, rows],
      ['ids', site.ids, rows],
    ]
  const gathered = site.xRows ? ((await site.xRows.data()) as Int32Array) : undefined
  return [
    ['dy', site.dy, rows],
    ['x', site.x, gathered ? rows.map((row) => gathered[row]!) : rows],
  ]
}

/** How many values the given rows of a tensor hold, and a digest of their bits. */
async function digest(tensor: Tensor, rows: readonly number[]): Promise<string> {
  const data = await tensor.data()
  const bytes = new Uint8Array(data.buffer, data.byteOffset, data.byteLength)
  const width = 4 * tensor.shape.slice(1).reduce((product, extent) => product * extent, 1)
  const hash = createHash('sha256')
  for (const row of rows) hash.update(bytes.subarray(row * width, (row + 1) * width))
  return `${(rows.length * width) / 4} values ${hash.digest('hex')}`
}
