import type { LossLattice } from './loss-lattice.js'
import { regrid } from './regrid.js'
import { type Composed, type CountedLattice, compose } from './self-convolution.js'

/** How a number of equal releases is composed in blocks. */
export interface BlockPlan {
  /** Number of times that blocks are formed and put on a coarser lattice. */
  readonly levels: number
  /** Each level's blocks hold factor^2 of the last level's, on a lattice `factor` times as coarse. */
  readonly factor: number
}

/** Most draws of one lattice in a single convolution, when blocks are used. */
export const DIRECT = 256

/** No blocks: all releases in one convolution. */
export const ONE_BLOCK: BlockPlan = { levels: 0, factor: 1 }

/**
 * Blocks for `count` releases: a lattice fine enough for one release and wide enough for all of them would need
 * sqrt(count) times as many points as either; composing in blocks on ever coarser lattices needs the same few for each
 * level, and adds one discretisation error per level.
 */
export function planBlocks(count: number): BlockPlan {
  if (count <= DIRECT) return ONE_BLOCK
  const ratio = Math.sqrt(count / DIRECT)
  const levels = Math.ceil(Math.log(ratio) / Math.log(Math.sqrt(DIRECT)) - 1e-9)
  return { levels, factor: Math.ceil(ratio ** (1 / levels) - 1e-9) }
}

/** What a segment has become after its last level: lattices of one interval, relative masses. */
export interface BlockedSegment {
  readonly parts: readonly CountedLattice[]
  /** log of what all parts' masses together have to be multiplied by. */
  readonly logScale: number
  /** Bound on the error in total variation under the tilted measure. */
  readonly error: number
}

/**
 * Composes `count` releases in blocks, according to the plan.
 *
 * @returns undefined where a window would be too large.
 */
export function composeBlocks(
  lattice: LossLattice,
  count: number,
  plan: BlockPlan,
  theta: number,
  outside: number,
): BlockedSegment | undefined {
  let block: CountedLattice = { lattice, count }
  let rest: LossLattice | undefined
  let [blockScale, restScale, error] = [0, 0, 0]
  const perBlock = plan.factor * plan.factor
  for (let level = 0; level < plan.levels; level++) {
    const whole = Math.floor(block.count / perBlock)
    const left = block.count - whole * perBlock
    const remaining: CountedLattice[] = []
    if (left > 0) remaining.push({ lattice: block.lattice, count: left })
    if (rest) remaining.push({ lattice: rest, count: 1 })
    if (remaining.length > 0) {
      const composed = compose(remaining, theta, outside)
      if (!composed) return undefined
      const coarse = regrid(composed, plan.factor)
      rest = coarse.lattice
      restScale += left * blockScale + coarse.logScale
      error += composed.error
    }
    const composed: Composed | undefined = compose(
      [{ lattice: block.lattice, count: perBlock }],
      theta,
      outside / Math.max(1, whole),
    )
    if (!composed) return undefined
    const coarse = regrid(composed, plan.factor)
    block = { lattice: coarse.lattice, count: whole }
    blockScale = perBlock * blockScale + coarse.logScale
    error += whole * composed.error
  }
  const parts = [block, ...(rest ? [{ lattice: rest, count: 1 }] : [])].filter((part) => part.count > 0)
  return { parts, logScale: block.count * blockScale + restScale, error }
}
