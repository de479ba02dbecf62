import { type EmbeddingSite, type GradientSite, identityOffsets, type LinearSite } from '../autograd/sinks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'

/** Per-segment gradients that the norm made anyway and the weighted sum uses again. */
export interface KeptTiles {
  readonly tileOf: Tensor
  readonly tiles: Tensor
}

/** Adds a site's squared gradient norm to each unit's, normSquared float64 [units]. */
export function addSquaredNorm(device: Device, site: GradientSite, normSquared: Tensor): KeptTiles | undefined {
  switch (site.kind) {
    case 'linear':
      return linearNorm(device, site, normSquared)
    case 'bias':
      device.run('segmentBiasNorms', {
        dy: site.dy,
        segmentOffsets: site.segments.offsets,
        normSquared,
        rows: site.dy.shape[0]!,
        p: site.dy.shape[1]!,
        segments: site.segments.segments,
        units: site.segments.units,
      })
      return undefined
    case 'embedding':
      device.run('embeddingGradientNorms', {
        dy: site.dy,
        ids: site.ids,
        segmentOffsets: site.segments.offsets,
        normSquared,
        rows: site.dy.shape[0]!,
        d: site.dy.shape[1]!,
        units: site.segments.units,
      })
      return undefined
    case 'perUnit':
      device.run('segmentBiasNorms', {
        dy: site.gradient,
        segmentOffsets: identityOffsets(site),
        normSquared,
        rows: site.units,
        p: site.parameter.size,
        segments: site.units,
        units: site.units,
      })
      return undefined
  }
}

function linearNorm(device: Device, site: LinearSite, normSquared: Tensor): KeptTiles {
  const rows = site.dy.shape[0]!
  const p = site.dy.shape[1]!
  const d = site.x.shape[1]!
  const maxTiles = mostTiles(site, p, d)
  const tileOf = device.empty([site.segments.segments], { dtype: 'int32' })
  const tiles = device.empty([maxTiles, p, d])
  device.run('segmentGradientNorms', {
    dy: site.dy,
    x: site.x,
    xRows: site.xRows,
    segmentOffsets: site.segments.offsets,
    normSquared,
    tileOf,
    tiles,
    rows,
    p,
    d,
    segments: site.segments.segments,
    units: site.segments.units,
    maxTiles,
  })
  return { tileOf, tiles }
}

/**
 * How many segments can take the tile form at most: those with n^2 >= 20 h, h = d p / (d + p). Group sizes are known on the
 * device only, but a unit of length L spread over experts has at most L * fanOut / n of them.
 */
function mostTiles(site: LinearSite, p: number, d: number): number {
  const shortest = Math.max(1, Math.ceil(Math.sqrt((20 * d * p) / (d + p))))
  let tiles = 0
  for (const length of site.segments.lengths) tiles += Math.floor((length * site.segments.fanOut) / shortest)
  return tiles
}

/** The cross term of a table used both as embedding and as output head, from its merged sites. */
export function tiedNorm(device: Device, sites: readonly GradientSite[], normSquared: Tensor): void {
  if (sites.length < 2) return
  const table = sites.find((site): site is EmbeddingSite => site.kind === 'embedding')
  const head = sites.find((site): site is LinearSite => site.kind === 'linear')
  if (sites.length !== 2 || !table || !head || head.xRows) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `${sites[0]!.parameter.name}: expected uses of one kind, or one embedding table with one output head, got ` +
        sites.map((site) => site.kind).join(' and '),
    )
  }
  device.run('tiedEmbeddingNorms', {
    dEmbedding: table.dy,
    ids: table.ids,
    embeddingOffsets: table.segments.offsets,
    dLogits: head.dy,
    x: head.x,
    headOffsets: head.segments.offsets,
    normSquared,
    d: table.dy.shape[1]!,
    vocabulary: head.dy.shape[1]!,
    units: table.segments.units,
  })
}
