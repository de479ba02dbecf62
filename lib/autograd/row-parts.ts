import type { Segments, UnitLayout } from './layout.js'

/** Consecutive rows: those of some whole units, or a piece of one long unit. */
export interface RowPart {
  readonly begin: number
  readonly end: number
  readonly firstUnit: number
  /** Past the last. */
  readonly endUnit: number
  /** Of a unit that has more rows than a part. */
  readonly piece?: 'first' | 'middle' | 'last'
}

/** Cuts rows into parts of at most `longest`. A unit is only cut where it is longer itself, at places counted from its start. */
export function rowParts({ offsets, units }: UnitLayout, longest: number): RowPart[] {
  const parts: RowPart[] = []
  let firstUnit = 0
  const whole = (endUnit: number) => {
    const [begin, end] = [offsets[firstUnit]!, offsets[endUnit]!]
    if (end > begin) parts.push({ begin, end, firstUnit, endUnit })
    firstUnit = endUnit
  }
  for (let unit = 0; unit < units; unit++) {
    const [begin, end] = [offsets[unit]!, offsets[unit + 1]!]
    if (end - offsets[firstUnit]! > longest) whole(unit)
    if (end - begin <= longest) continue
    for (let row = begin; row < end; row += longest) {
      const piece = row === begin ? 'first' : row + longest >= end ? 'last' : 'middle'
      parts.push({ begin: row, end: Math.min(end, row + longest), firstUnit: unit, endUnit: unit + 1, piece })
    }
    firstUnit = unit + 1
  }
  whole(units)
  return parts
}

/** A part's rows as segments of its units, counted from its first row. */
export function segmentsOf({ offsets, device }: UnitLayout, { begin, end, firstUnit, endUnit }: RowPart): Segments {
  const bounds = offsets.slice(firstUnit, endUnit + 1).map((bound) => Math.min(Math.max(bound, begin), end) - begin)
  const units = endUnit - firstUnit
  const lengths = Int32Array.from({ length: units }, (_, unit) => bounds[unit + 1]! - bounds[unit]!)
  return { offsets: device.tensor(bounds, [bounds.length], 'int32'), segments: units, units, lengths, fanOut: 1 }
}
