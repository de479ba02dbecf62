import { converted } from '../autograd/cast.js'
import {
  addWeightedGradient,
  type EmbeddingSite,
  type GradientSite,
  identityOffsets,
  type LinearSite,
  type PerUnitSite,
} from '../autograd/sinks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'

/** Which segments have tiles, and the tiles. */
interface Tiles {
  readonly tileOf: Tensor
  readonly tiles: Tensor
}

/**
 * What the norm of a site found out that its clipped gradient must know: that of a segment whose rows cancel is made in the
 * way its norm was. Undefined where tiles are to be made again: they are too large to be kept.
 */
export type Marks = Tensor | undefined

/** Adds a site's squared gradient norm to each unit's, normSquared float64 [units]. */
export function addSquaredNorm(device: Device, site: GradientSite, normSquared: Tensor): Marks {
  switch (site.kind) {
    case 'linear':
      return device.scope(() => {
        const { tileOf } = linearNorm(device, site, normSquared)
        return mostTiles(site) === 0 ? tileOf : undefined
      })
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

/** Adds factor(unit) * gradient of a site whose norm was taken to its parameter's gradient buffer. */
export function addClippedGradient(device: Device, site: GradientSite, factor: Tensor, marks: Marks): void {
  if (site.kind !== 'linear') {
    addWeightedGradient(site, factor)
    return
  }
  device.scope(() => {
    const { segments } = site
    const again = () => linearNorm(device, site, device.zeros([segments.units], { dtype: 'float64' }))
    const [p, d] = [site.dy.shape[1]!, site.x.shape[1]!]
    addWeightedGradient(site, factor, marks ? { tileOf: marks, tiles: device.empty([0, p, d]) } : again())
  })
}

function linearNorm(device: Device, site: LinearSite, normSquared: Tensor): Tiles {
  const [rows, p] = site.dy.shape as [number, number]
  const d = site.x.shape[1]!
  const maxTiles = mostTiles(site)
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
 * device only, but a unit of length L spread over experts has at most L * fanOut / n of them, and one an expert.
 */
function mostTiles({ dy, x, segments: { lengths, fanOut, segments, units } }: LinearSite): number {
  const [p, d] = [dy.shape[1]!, x.shape[1]!]
  const shortest = Math.max(1, Math.ceil(Math.sqrt((20 * d * p) / (d + p))))
  let tiles = 0
  for (const length of lengths) tiles += Math.min(segments / units, Math.floor((length * fanOut) / shortest))
  return tiles
}

/**
 * The cross term of a table used both as embedding and as output head, from its merged sites, added to the norms of the
 * units that the head's site is of.
 */
export function tiedNorm(device: Device, sites: readonly GradientSite[], normSquared: Tensor): void {
  if (sites.length < 2) return
  const table = sites.find((site): site is EmbeddingSite => site.kind === 'embedding')
  const head = sites.find((site) => site.kind === 'linear' || site.kind === 'perUnit')
  if (sites.length !== 2 || !table || !head || ('xRows' in head && head.xRows)) {
    throw new DpMoeError(
      'INVALID_ARGUMENT',
      `${sites[0]!.parameter.name}: expected uses of one kind, or one embedding table with one output head, got ` +
        sites.map((site) => site.kind).join(' and '),
    )
  }
  if (head.kind === 'linear') crossTerm(device, table, head, normSquared)
  else writtenCrossTerm(device, table, head, normSquared)
}

function crossTerm(device: Device, table: EmbeddingSite, head: LinearSite, normSquared: Tensor): void {
  const { firstUnit, segments } = head
  const { offsets } = table.segments
  device.run('tiedEmbeddingNorms', {
    dEmbedding: table.dy,
    ids: table.ids,
    embeddingOffsets: firstUnit === undefined ? offsets : offsets.slice(firstUnit, segments.units + 1),
    dLogits: head.dy,
    x: head.x,
    headOffsets: segments.offsets,
    normSquared,
    d: table.dy.shape[1]!,
    vocabulary: head.dy.shape[1]!,
    units: segments.units,
  })
}

/** Columns of a written gradient that are taken at once. */
const columnsAtOnce = 64

/**
 * The same for one unit whose head gradient T [vocabulary, d] is written out: of the numbers in it, which rounding made. T' is
 * taken for output gradients of d rows, with the rows of the unit matrix beside it.
 */
function writtenCrossTerm(device: Device, table: EmbeddingSite, head: PerUnitSite, normSquared: Tensor): void {
  const { parameter, firstUnit } = head
  const [vocabulary, d] = parameter.shape as [number, number]
  for (let column = 0; column < d; column += columnsAtOnce) {
    device.scope(() => {
      const rows = Math.min(columnsAtOnce, d - column)
      const unitRows = new Float32Array(rows * d)
      for (let row = 0; row < rows; row++) unitRows[row * d + column + row] = 1
      const x = device.tensor(unitRows, [rows, d])
      const dy = device.empty([rows, vocabulary])
      device.run('matrixMultiply', {
        x,
        weight: head.gradient,
        y: dy,
        rows,
        k: d,
        n: vocabulary,
        groups: 1,
        groupStride: 1,
        transposed: true,
        accumulate: false,
        activation: 0,
      })
      const offsets = device.tensor(Int32Array.of(0, rows), [2], 'int32')
      const segments = { offsets, segments: 1, units: 1, lengths: Int32Array.of(rows), fanOut: 1 }
      const float32 = { ...table, dy: converted(device, table.dy, 'float32') }
      crossTerm(device, float32, { kind: 'linear', parameter, dy, x, segments, firstUnit: firstUnit! }, normSquared)
    })
  }
}
