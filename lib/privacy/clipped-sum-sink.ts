import type { Parameter } from '../autograd/parameter.js'
import { addWeightedGradient, type GradientSink, type GradientSite } from '../autograd/sinks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { automaticStability, type Clipping } from './clipping.js'
import { addSquaredNorm, type KeptTiles, tiedNorm } from './gradient-norms.js'
import { mergeSites } from './merge-sites.js'

/** A site whose norm is known: what its weighted gradient is made from. */
interface Prepared {
  readonly site: GradientSite
  readonly kept?: KeptTiles
}

/**
 * The private sink (book-keeping, arXiv 2210.00038): keeps the sites of one backward pass, then adds up squared norms per
 * unit, turns them into clip factors, and adds factor(unit) * gradient to each parameter's gradient buffer.
 *
 * Guarantee. What `finish` adds is a sum over units of vectors that depend on one unit each and have L2 norm at most
 * `clipping.maxGradNorm` over all trained parameters together (the factors aim at C (1 - 2^-10), which covers rounding).
 *
 * | case | what the unit adds |
 * |---|---|
 * | norm 0 | its gradient, zero |
 * | norm below the bound | its gradient, unchanged (flat, per-layer) |
 * | norm infinite or NaN in any group | nothing; counted in `statistics` |
 * | a unit with no rows | nothing |
 * | a parameter used at several sites | the norm of the sum of its sites |
 */
export class ClippedSumSink implements GradientSink {
  readonly #sites = new Map<Parameter, GradientSite[]>()

  constructor(
    readonly device: Device,
    readonly clipping: Clipping,
    readonly units: number,
    /** float64 [groups, 3]: clipped units, non-finite units and the sum of norms are added to it. Private. */
    readonly statistics: Tensor,
  ) {}

  add(site: GradientSite): void {
    const units = site.kind === 'perUnit' ? site.units : site.segments.units
    if (units !== this.units) {
      throw new DpMoeError('UNIT_MIXING', `${site.parameter.name}: a gradient site of another batch reached this sink`)
    }
    const sites = this.#sites.get(site.parameter)
    if (sites) sites.push(site)
    else this.#sites.set(site.parameter, [site])
  }

  /** Squared gradient norms per unit, float64 [groups, units]; no gradient is touched. Un-noised. */
  squaredNorms(): Tensor {
    return this.#norms().normSquared
  }

  /** Clips and adds every unit's gradient to the parameters' gradient buffers; call once, after backward. */
  finish(): void {
    const { groups, mode } = this.clipping
    const { normSquared, prepared } = this.#norms()
    const bounds = this.device.tensor(
      Float32Array.from(groups, (group) => group.bound),
      [groups.length],
    )
    const factor = this.device.empty([groups.length, this.units])
    this.device.run('clipFactors', {
      normSquared,
      bounds,
      factor,
      statistics: this.statistics,
      groups: groups.length,
      units: this.units,
      mode: mode === 'automatic' ? 1 : 0,
      stability: automaticStability,
    })
    prepared.forEach((sites, group) => {
      const factorOfGroup = factor.slice(group * this.units, this.units)
      for (const { site, kept } of sites) addWeightedGradient(site, factorOfGroup, kept)
    })
    this.#sites.clear()
  }

  #norms(): { normSquared: Tensor; prepared: Prepared[][] } {
    const { groups } = this.clipping
    const normSquared = this.device.zeros([groups.length, this.units], { dtype: 'float64' })
    const prepared = groups.map((group, index) => {
      const normOfGroup = normSquared.slice(index * this.units, this.units)
      return group.parameters.flatMap((parameter) => {
        const sites = mergeSites(this.device, this.#sites.get(parameter) ?? [])
        const members = sites.map((site) => ({ site, kept: addSquaredNorm(this.device, site, normOfGroup) }))
        tiedNorm(this.device, sites, normOfGroup)
        return members
      })
    })
    return { normSquared, prepared }
  }
}
