import type { Tensor } from '../engine/tensor.js'
import type { Segments } from './layout.js'
import type { Parameter } from './parameter.js'

/** One use of a weight matrix: y[r] = W x[xRows[r]], per group of segments. Shapes as WeightGradientParams. */
export interface LinearSite {
  readonly kind: 'linear'
  readonly parameter: Parameter
  /** [rows, p] or [slots, p]. */
  readonly dy: Tensor
  /** [*, d]. */
  readonly x: Tensor
  readonly xRows?: Tensor
  readonly segments: Segments
  /** Where a site is of some of the units (`vocabularyLoss`): the first of them. */
  readonly firstUnit?: number
}

/** One use of a bias: dy summed over each group's rows. */
export interface BiasSite {
  readonly kind: 'bias'
  readonly parameter: Parameter
  readonly dy: Tensor
  readonly segments: Segments
}

/** One use of an embedding table: row ids[r] of the table was row r. */
export interface EmbeddingSite {
  readonly kind: 'embedding'
  readonly parameter: Parameter
  readonly dy: Tensor
  readonly ids: Tensor
  readonly segments: Segments
}

/** One use of a small parameter whose gradient was written out per unit: gradient [units, size]. */
export interface PerUnitSite {
  readonly kind: 'perUnit'
  readonly parameter: Parameter
  readonly gradient: Tensor
  readonly units: number
  /** Where a site is of some of the units: the first of them. */
  readonly firstUnit?: number
}

/** What backward hands over at each use of a parameter, instead of a gradient. */
export type GradientSite = LinearSite | BiasSite | EmbeddingSite | PerUnitSite

/** Receives the gradient sites of a backward pass. */
export interface GradientSink {
  /**
   * Takes a site and returns the tensors that it will need later on. `isOnly`: the parameter was used once in the forward
   * pass, so that no other site of it comes.
   */
  add(site: GradientSite, isOnly: boolean): readonly Tensor[]
  /**
   * A part of backward that can be run again (`checkpoint`), for a sink that needs sites twice: it runs it in place of
   * keeping them. Returns whether it will do so after backward. Default: the part is run once, with this sink.
   */
  addPart?(run: (sink: GradientSink) => void): boolean
  /** Whether each unit's gradient is needed by itself. Default false: their sum is. */
  readonly clips?: boolean
}

/** The tensors that a site consists of. */
export function tensorsOf(site: GradientSite): Tensor[] {
  switch (site.kind) {
    case 'linear':
      return [site.dy, site.x, ...(site.xRows ? [site.xRows] : []), site.segments.offsets]
    case 'bias':
      return [site.dy, site.segments.offsets]
    case 'embedding':
      return [site.dy, site.ids, site.segments.offsets]
    case 'perUnit':
      return [site.gradient]
  }
}

/** Adds factor(unit) * gradient of a site to its parameter's gradient buffer; without factors, the plain sum. */
export function addWeightedGradient(
  site: GradientSite,
  factor?: Tensor,
  kept?: { tileOf: Tensor; tiles: Tensor },
): void {
  const device = site.parameter.device
  const gradient = site.parameter.gradient
  switch (site.kind) {
    case 'linear':
      device.run('weightGradient', {
        dy: site.dy,
        x: site.x,
        xRows: site.xRows,
        segmentOffsets: site.segments.offsets,
        factor,
        tileOf: kept?.tileOf,
        tiles: kept?.tiles,
        gradient,
        rows: site.dy.shape[0]!,
        p: site.dy.shape[1]!,
        d: site.x.shape[1]!,
        segments: site.segments.segments,
        units: site.segments.units,
      })
      return
    case 'bias':
      device.run('biasGradient', {
        dy: site.dy,
        segmentOffsets: site.segments.offsets,
        factor,
        gradient,
        rows: site.dy.shape[0]!,
        p: site.dy.shape[1]!,
        segments: site.segments.segments,
        units: site.segments.units,
      })
      return
    case 'embedding':
      device.run('embeddingGradient', {
        dy: site.dy,
        ids: site.ids,
        segmentOffsets: site.segments.offsets,
        factor,
        gradient,
        rows: site.dy.shape[0]!,
        d: site.dy.shape[1]!,
        units: site.segments.units,
        vocabulary: site.parameter.shape[0]!,
      })
      return
    case 'perUnit': {
      device.run('biasGradient', {
        dy: site.gradient,
        segmentOffsets: identityOffsets(site),
        factor,
        gradient,
        rows: site.units,
        p: site.parameter.size,
        segments: site.units,
        units: site.units,
      })
      return
    }
  }
}

/** Segment bounds of a tensor with one row per unit. */
export function identityOffsets(site: PerUnitSite): Tensor {
  const bounds = Int32Array.from({ length: site.units + 1 }, (_, unit) => unit)
  return site.parameter.device.tensor(bounds, [bounds.length], 'int32')
}

/** Without privacy: each site's gradient is added at once. */
export class SumSink implements GradientSink {
  add(site: GradientSite): readonly Tensor[] {
    addWeightedGradient(site)
    return []
  }
}
