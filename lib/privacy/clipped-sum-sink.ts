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

type RunPart = (sink: GradientSink) => void

/** A part of backward that makes its sites once more, and the marks of those that are not kept, in order. */
interface Part {
  readonly run: RunPart
  readonly marks: readonly Marks[]
}

/**
 * The private sink (book-keeping, arXiv 2210.00038): adds up squared norms per unit and keeps the sites of one backward
 * pass, turns the norms into clip factors, and adds factor(unit) * gradient to each parameter's gradient buffer. Sites of
 * checkpointed parts are not kept but made again.
 *
 * Guarantee. What `finish` adds is a sum over units of vectors that depend on one unit each and have L2 norm at most
 * `clipping.maxGradNorm` over all trained parameters together, however a unit's rows cancel: the norm is that of the numbers
 * that are added, or differs from it by less than the margin of the factors, which aim at C (1 - 2^-10) (docs/privacy.md,
 * Clipping). What is left is the float32 rounding of adding the units' vectors to each other.
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
  /** Parameters whose norms are taken at once, and up to which unit. */
  readonly #taken = new Map<Parameter, number>()
  /** What makes the sites of an output head again whose weight has other uses as well. */
  readonly #heads = new Map<Parameter, RunPart>()
  readonly clips = true
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
    if (this.#taken.has(site.parameter) && !this.#heads.has(site.parameter)) throw severalSites(site)
    const sites = this.#open.get(site.parameter)
    if (sites) sites.push(site)
    else this.#open.set(site.parameter, [site])
    return tensorsOf(site)
  }

  addPart(run: RunPart): boolean {
    const marks: Marks[] = []
    const add = (site: GradientSite, isOnly: boolean): readonly Tensor[] => {
      if (!isMadeAgain(site, isOnly)) return this.add(site)
      if (!isOnly) this.#noteHead(site, run)
      const found = this.#groupOfSite(site) === undefined ? undefined : this.#addOnlyNorm(site)
      marks.push(found)
      return found ? [found] : []
    }
    run({ add, clips: true })
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
      if (group !== undefined) addClippedGradient(this.device, site, unitsOf(site, factorOfGroup[group]!), marks)
    }
    for (const { site, marks } of this.#settled) addGradient(site, marks)
    for (const { run, marks } of this.#parts) {
      let sites = 0
      const add = (site: GradientSite, isOnly: boolean) => {
        if (isMadeAgain(site, isOnly)) addGradient(site, marks[sites++])
        return []
      }
      run({ add, clips: true })
    }
    this.#settled.length = 0
    this.#parts.length = 0
  }

  /** Adds the norm of the only site that a parameter, which is in a group, has of the site's units. */
  #addOnlyNorm(site: GradientSite): Marks {
    const { parameter } = site
    const { first = 0, units } = rangeOf(site)
    const isOpen = this.#open.has(parameter) && !this.#heads.has(parameter)
    if (isOpen || (this.#taken.get(parameter) ?? 0) > first) throw severalSites(site)
    this.#taken.set(parameter, first + units)
    return addSquaredNorm(this.device, site, unitsOf(site, this.#normOfGroup[this.#groupOfSite(site)!]!))
  }

  #noteHead(site: GradientSite, run: RunPart): void {
    if ((this.#heads.get(site.parameter) ?? run) !== run) throw severalSites(site)
    this.#heads.set(site.parameter, run)
  }

  /** Adds the norms of parameters that are used more than once, now that all their sites are there. */
  #settle(): void {
    for (const [parameter, added] of this.#open) {
      const norm = this.#normOfGroup[this.#groupOf.get(parameter)!]!
      const sites = mergeSites(this.device, added)
      for (const site of sites) this.#settled.push({ site, marks: addSquaredNorm(this.device, site, norm) })
      const head = this.#heads.get(parameter)
      if (!head) tiedNorm(this.device, sites, norm)
      head?.({
        clips: true,
        add: (site) => {
          const ofUnits = unitsOf(site, norm)
          if (site.parameter === parameter) tiedNorm(this.device, [...sites, site], ofUnits)
          return []
        },
      })
    }
    this.#open.clear()
  }

  /** The clipping group of a site's parameter; undefined for one that is not clipped and updated here. */
  #groupOfSite(site: GradientSite): number | undefined {
    const { first, units } = rangeOf(site)
    if (first === undefined ? units !== this.units : first + units > this.units) {
      throw new DpMoeError('UNIT_MIXING', `${site.parameter.name}: a gradient site of another batch reached this sink`)
    }
    return this.#groupOf.get(site.parameter)
  }
}

/** The units of a site: all, or from `first` on. */
function rangeOf(site: GradientSite): { first: number | undefined; units: number } {
  if (site.kind === 'perUnit') return { first: site.firstUnit, units: site.units }
  return { first: site.kind === 'linear' ? site.firstUnit : undefined, units: site.segments.units }
}

/** One value per unit, [units] -> those of the site's units. */
function unitsOf(site: GradientSite, values: Tensor): Tensor {
  const { first, units } = rangeOf(site)
  return first === undefined ? values : values.slice(first, units)
}

/** Whether a site of a part that can be run again is not kept. */
function isMadeAgain(site: GradientSite, isOnly: boolean): boolean {
  return isOnly || rangeOf(site).first !== undefined
}

function severalSites({ parameter }: GradientSite): DpMoeError {
  return new DpMoeError(
    'INVALID_ARGUMENT',
    `${parameter.name}: an op that names it once in \`record\` handed over several gradient sites, whose norms do not add up`,
  )
}
