import type { Parameter } from '../../autograd/parameter.js'

/** Where a tensor of a checkpoint lies in a model: a run of a parameter's elements. */
export interface TensorPlace {
  readonly parameter: Parameter
  readonly shape: readonly number[]
  readonly offset: number
  /** Whether a checkpoint may leave it out: a new head, which then keeps its first weights. */
  readonly optional: boolean
}

/** A tensor that holds all experts of a layer, as transformers 5 keeps them in memory: [experts, parts * rows, columns]. */
export interface FusedExperts {
  /** Parameters [experts, rows, columns] whose rows follow each other within an expert: gate, then up. */
  readonly parts: readonly Parameter[]
  readonly experts: number
  readonly rows: number
  readonly columns: number
  /** The names of the per-expert tensors it stands for. */
  readonly covers: readonly string[]
}

/** How a model's parameters are spelled in a checkpoint. */
export class TensorMap {
  /** By the name under which they are saved. */
  readonly tensors = new Map<string, TensorPlace>()
  /** Accepted in place of per-expert tensors. */
  readonly fused = new Map<string, FusedExperts>()
  readonly #renames: (readonly [RegExp, string])[] = []
  readonly #ignored: RegExp[] = []
  /** Further names of tied tensors. */
  readonly #aliases = new Map<string, string>()
  readonly #savedAlso: string[] = []

  /** A whole parameter; nothing where the model has none. */
  add(name: string, parameter: Parameter | undefined, { optional = false } = {}): this {
    if (parameter) this.tensors.set(name, { parameter, shape: parameter.shape, offset: 0, optional })
    return this
  }

  /** Expert e of a parameter [experts, ...] under the name `nameOf(e)`. */
  addExperts(nameOf: (expert: number) => string, parameter: Parameter): this {
    const [experts, ...shape] = parameter.shape as [number, ...number[]]
    const size = parameter.size / experts
    for (let expert = 0; expert < experts; expert++) {
      this.tensors.set(nameOf(expert), { parameter, shape, offset: expert * size, optional: false })
    }
    return this
  }

  /** Another name for all experts of one or two parameters in one tensor, whose per-expert names `covers` lists. */
  addFused(names: readonly string[], parts: readonly Parameter[], covers: readonly string[]): this {
    const [experts, rows, columns] = parts[0]!.shape as [number, number, number]
    for (const name of names) this.fused.set(name, { parts, experts, rows, columns, covers })
    return this
  }

  /** Further names of a tensor that a checkpoint may hold as well, or instead: the two ends of a tied table. */
  tie(name: string, ...others: readonly string[]): this {
    for (const other of others) this.#aliases.set(other, name)
    return this
  }

  /** Tied names under which the tensor is saved once more. */
  saveAlso(...names: readonly string[]): this {
    for (const name of names) this.#savedAlso.push(name)
    return this
  }

  /** The tensors to save, by name. */
  saved(): Map<string, TensorPlace> {
    const copies = this.#savedAlso.map((name) => [name, this.tensors.get(this.#aliases.get(name)!)!] as const)
    return new Map([...this.tensors, ...copies])
  }

  isTied(name: string): boolean {
    return [...this.#aliases.values()].includes(name)
  }

  /** Tensors with a name that matches are looked up under the replacement. */
  rename(pattern: RegExp, replacement: string): this {
    this.#renames.push([pattern, replacement])
    return this
  }

  /** Tensors with a name that matches belong to parts that this model does not have; they are passed over. */
  ignore(...patterns: RegExp[]): this {
    this.#ignored.push(...patterns)
    return this
  }

  /** The name in `tensors` or `fused` of a checkpoint's tensor; undefined where it is to be passed over. */
  resolve(name: string): string | undefined {
    let resolved = name
    for (const [pattern, replacement] of this.#renames) resolved = resolved.replace(pattern, replacement)
    resolved = this.#aliases.get(resolved) ?? resolved
    if (this.tensors.has(resolved) || this.fused.has(resolved)) return resolved
    return this.#ignored.some((pattern) => pattern.test(name)) ? undefined : resolved
  }
}
