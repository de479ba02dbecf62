import type { Parameter } from '../autograd/parameter.js'
import { type GradientSink, type GradientSite, tensorsOf } from '../autograd/sinks.js'
import type { Device } from '../engine/device.js'
import type { Tensor } from '../engine/tensor.js'
import { DpMoeError } from '../errors.js'
import { automaticStability, type Clipping } from './clipping.js'
import { addClippedGradient, addSquaredNorm, type Marks, tiedNorm } from './gradient-norms.js'
import { mergeSites } from './merge-sites.js'

/** A site whose norm is known: what its clipped gradient is made from. */
interface Settled {
  readonly site: GradientSite
  readonly marks: Marks
}

/** A part of backward that makes its sites once more, and the marks of those that are not kept, in order. */
interface Part {
  readonly run: (sink: GradientSink) => void
  readonly marks: readonly Marks[]
}

/**
 * The private sink (book-keeping, arXiv 2210.00038): adds up squared norms per unit and keeps the sites of one backward
 * pass, turns the norms into clip factors, and adds factor(unit) * gradient to each parameter's gradient buffer. Sites of
 * checkpointed parts are not kept but made again.
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
  readonly #groupOf = new Map<Parameter, number>()
  readonly #normSquared: Tensor
  readonly #normOfGroup: readonly Tensor[]
  /** Sites whose norms are added already. */
  readonly #settled: Settled[] = []
  /** Those of parameters that are used more than once: the norm is that of their sum. */
  readonly #open = new Map<Parameter, GradientSite[]>()
  /** Parameters that said they have one site. */
  readonly #single = new Set<Parameter>()
  readonly #parts: Part[] = []

  constructor(
    readonly device: Device,
    readonly clipping: Clipping,
    readonly units: number,
    /** float64 [groups, 3]: clipped units, non-finite units and the sum of norms are added to it. Private. */
    readonly statistics: Tensor,
  ) {
    const { groups } = clipping
    for (const [index, { parameters }] of groups.entries()) {
      for (const parameter of parameters) this.#groupOf.set(parameter, index)
    }
    this.#normSquared = device.zeros([groups.length, units], { dtype: 'float64' })
    this.#normOfGroup = groups.map((_, group) => this.#normSquared.slice(group * units, units))
  }

  add(site: GradientSite, isOnly = false): readonly Tensor[] {
    if (this.#groupOfSite(site) === undefined) return []
    if (isOnly) {
      const marks = this.#addOnlyNorm(site)
      this.#settled.push({ site, marks })
      return [...tensorsOf(site), ...(marks ? [marks] : [])]
    }
    if (this.#single.has(site.parameter)) throw severalSites(site)
    const sites = this.#open.get(site.parameter)
    if (sites) sites.push(site)
    else this.#open.set(site.parameter, [site])
    return tensorsOf(site)
  }

  addPart(run: (sink: GradientSink) => void): boolean {
    const marks: Marks[] = []
    const add = (site: GradientSite, isOnly: boolean): readonly Tensor[] => {
      if (!isOnly) return this.add(site)
      const found = this.#groupOfSite(site) === undefined ? undefined : this.#addOnlyNorm(site)
      marks.push(found)
      return found ? [found] : []
    }
    run({ add })
    this.#parts.push({ run, marks })
    return true
  }

  /** Squared gradient norms per unit, float64 [groups, units]; no gradient is touched. Un-noised. */
  squaredNorms(): Tensor {
    this.#settle()
    return this.#normSquared
  }

  /** Clips and adds every unit's gradient to the parameters' gradient buffers; call once, after backward. */
  finish(): void {
    const { groups, mode } = this.clipping
    this.#settle()
    const bounds = this.device.tensor(
      Float32Array.from(groups, (group) => group.bound),
      [groups.length],
    )
    const factor = this.device.empty([groups.length, this.units])
    this.device.run('clipFactors', {
      normSquared: this.#normSquared,
      bounds,
      factor,
      statistics: this.statistics,
      groups: groups.length,
      units: this.units,
      mode: mode === 'automatic' ? 1 : 0,
      stability: automaticStability,
    })
    const factorOfGroup = groups.map((_, group) => factor.slice(group * this.units, this.units))
    const addGradient = (site: GradientSite, marks: Marks) => {
      const group = this.#groupOfSite(site)
      if (group !== undefined) addClippedGradient(this.device, site, factorOfGroup[group]!, marks)
    }
    for (const { site, marks } of this.#settled) addGradient(site, marks)
    for (const { run, marks } of this.#parts) {
      let sites = 0
      const add = (site: GradientSite, isOnly: boolean) => {
        if (isOnly) addGradient(site, marks[sites++])
        return []
      }
      run({ add })
    }
    this.#settled.length = 0
    this.#parts.length = 0
  }

  /** Adds the norm of the only site of a parameter that is in a group. */
  #addOnlyNorm(site: GradientSite): Marks {
    if (this.#single.has(site.parameter) || this.#open.has(site.parameter)) throw severalSites(site)
    this.#single.add(site.parameter)
    return addSquaredNorm(this.device, site, this.#normOfGroup[this.#groupOfSite(site)!]!)
  }

  /** Adds the norms of parameters that are used more than once, now that all their sites are there. */
  #settle(): void {
    for (const [parameter, added] of this.#open) {
      const norm = this.#normOfGroup[this.#groupOf.get(parameter)!]!
      const sites = mergeSites(this.device, added)
      for (const site of sites) this.#settled.push({ site, marks: addSquaredNorm(this.device, site, norm) })
      tiedNorm(this.device, sites, norm)
    }
    this.#open.clear()
  }

  /** The clipping group of a site's parameter; undefined for one that is not clipped and updated here. */
  #groupOfSite(site: GradientSite): number | undefined {
    const units = site.kind === 'perUnit' ? site.units : site.segments.units
    if (units !== this.units) {
      throw new DpMoeError('UNIT_MIXING', `${site.parameter.name}: a gradient site of another batch reached this sink`)
    }
    return this.#groupOf.get(site.parameter)
  }
}

function severalSites({ parameter }: GradientSite): DpMoeError {
  return new DpMoeError(
    'INVALID_ARGUMENT',
    `${parameter.name}: an op that names it once in \`record\` handed over several gradient sites, whose norms do not add up`,
  )
}
