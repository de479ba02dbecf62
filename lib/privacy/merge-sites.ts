import type { Segments } from '../autograd/layout.js'
import type { BiasSite, EmbeddingSite, GradientSite, LinearSite, PerUnitSite } from '../autograd/sinks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'

/**
 * Joins the sites of one parameter so that at most one of each kind is left: the gradient of a parameter is the sum over
 * its uses, and its norm is the norm of that sum. Rows of a unit are concatenated ([A1; A2], [G1; G2]); written-out
 * gradients are added.
 */
export function mergeSites(device: Device, sites: readonly GradientSite[]): GradientSite[] {
  const merged: GradientSite[] = []
  for (const site of sites) {
    const index = merged.findIndex((other) => other.kind === site.kind)
    if (index < 0) merged.push(site)
    else merged[index] = join(device, merged[index]!, site)
  }
  return merged
}

function join(device: Device, a: GradientSite, b: GradientSite): GradientSite {
  if (a.kind === 'linear' && b.kind === 'linear') return joinLinear(device, a, b)
  if (a.kind === 'bias' && b.kind === 'bias') return joinBias(device, a, b)
  if (a.kind === 'embedding' && b.kind === 'embedding') return joinEmbedding(device, a, b)
  return joinPerUnit(device, a as PerUnitSite, b as PerUnitSite)
}

function joinLinear(device: Device, a: LinearSite, b: LinearSite): LinearSite {
  const segments = joinSegments(device, a, b)
  return {
    kind: 'linear',
    parameter: a.parameter,
    dy: joinRows(device, a.dy, a.segments, b.dy, b.segments),
    x: joinRows(device, a.x, a.segments, b.x, b.segments),
    segments,
  }
}

function joinBias(device: Device, a: BiasSite, b: BiasSite): BiasSite {
  const segments = joinSegments(device, a, b)
  return { kind: 'bias', parameter: a.parameter, dy: joinRows(device, a.dy, a.segments, b.dy, b.segments), segments }
}

function joinEmbedding(device: Device, a: EmbeddingSite, b: EmbeddingSite): EmbeddingSite {
  const segments = joinSegments(device, a, b)
  const ids = device.empty([a.ids.size + b.ids.size], { dtype: 'int32' })
  device.run('concatenateIndices', {
    a: a.ids,
    aOffsets: a.segments.offsets,
    b: b.ids,
    bOffsets: b.segments.offsets,
    y: ids,
    units: segments.units,
  })
  return {
    kind: 'embedding',
    parameter: a.parameter,
    dy: joinRows(device, a.dy, a.segments, b.dy, b.segments),
    ids,
    segments,
  }
}

function joinPerUnit(device: Device, a: PerUnitSite, b: PerUnitSite): PerUnitSite {
  const gradient = device.empty(a.gradient.shape)
  device.run('add', { a: a.gradient, b: b.gradient, y: gradient, size: gradient.size, alpha: 1, beta: 1 })
  return { ...a, gradient }
}

function joinRows(device: Device, a: Tensor, aSegments: Segments, b: Tensor, bSegments: Segments): Tensor {
  const d = a.shape[1]!
  const y = device.empty([a.shape[0]! + b.shape[0]!, d], { dtype: a.dtype })
  device.run('concatenateRows', {
    a,
    aOffsets: aSegments.offsets,
    b,
    bOffsets: bSegments.offsets,
    y,
    d,
    units: aSegments.units,
  })
  return y
}

function joinSegments(device: Device, a: Exclude<GradientSite, PerUnitSite>, b: typeof a): Segments {
  const routed = [a, b].some(
    (site) => site.segments.segments !== site.segments.units || ('xRows' in site && site.xRows),
  )
  if (routed) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `${a.parameter.name}: expert weights shared by two layers are not supported; give each layer its own experts`,
    )
  }
  const lengths = a.segments.lengths.map((length, unit) => length + b.segments.lengths[unit]!)
  const bounds = new Int32Array(lengths.length + 1)
  lengths.forEach((length, unit) => {
    bounds[unit + 1] = bounds[unit]! + length
  })
  const offsets = device.tensor(bounds, [bounds.length], 'int32')
  return { offsets, segments: a.segments.units, units: a.segments.units, lengths, fanOut: 1 }
}
