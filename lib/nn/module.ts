import type { StepRandom } from '../autograd/elementwise.js'
import { Parameter } from '../autograd/parameter.js'
import type { Tape } from '../autograd/tape.js'
import type { Telemetry } from './telemetry.js'

/** What a forward pass runs in. */
export interface ForwardContext {
  /** Records ops for backward; one without a sink evaluates. */
  readonly tape: Tape
  /** Dropout and jitter act in training only, keyed by `random`. */
  readonly training: boolean
  readonly random?: StepRandom
  /** Collects router loads and the like. Private values. */
  readonly telemetry?: Telemetry
}

/** A part of a model: parameters and other modules, found by walking its own fields. */
export abstract class Module {
  #activationCheckpointing = false

  /** Whether backward computes layers once more from their inputs instead of keeping what they made. */
  get activationCheckpointing(): boolean {
    return this.#activationCheckpointing
  }

  /**
   * Turns activation checkpointing on or off in this module and all inside: less memory, the same gradients bit for bit.
   * A plain step then takes about a third longer; a private one, which computes layers and their backward pass once more for
   * the clipped sum, nearly twice as long.
   */
  setActivationCheckpointing(on = true): this {
    for (const module of this.modules()) module.#activationCheckpointing = on
    return this
  }

  /** Parameters by full name, e.g. `layers.0.attention.query.weight`, in the order of the fields. */
  namedParameters(prefix = ''): Map<string, Parameter> {
    const found = new Map<string, Parameter>()
    for (const [field, value] of Object.entries(this)) collect(value, `${prefix}${field}`, found)
    return found
  }

  parameters(): Parameter[] {
    return [...new Set(this.namedParameters().values())]
  }

  trainableParameters(): Parameter[] {
    return this.parameters().filter((parameter) => parameter.trainable)
  }

  /** All modules inside, this one first. */
  *modules(): Generator<Module> {
    for (const [, module] of this.namedModules()) yield module
  }

  /** All modules inside by full name, this one first under ''. */
  *namedModules(prefix = ''): Generator<readonly [string, Module]> {
    yield [prefix, this]
    const below = (name: string) => (prefix === '' ? name : `${prefix}.${name}`)
    for (const [field, value] of Object.entries(this)) {
      for (const [index, child] of Array.isArray(value) ? value.entries() : [[undefined, value] as const]) {
        if (child instanceof Module) yield* child.namedModules(below(index === undefined ? field : `${field}.${index}`))
      }
    }
  }

  /** Gives every parameter its full name; called once a model is whole. */
  nameParameters(): this {
    for (const [name, parameter] of this.namedParameters()) if (parameter.name === '') parameter.name = name
    return this
  }

  freeze(): this {
    for (const parameter of this.parameters()) parameter.freeze()
    return this
  }

  /**
   * Settings of this module that would let one unit's gradient read others, as `name: reason`. Private training refuses
   * them by name. A module that couples rows of a batch must say so here.
   */
  couplesUnits(): string[] {
    return []
  }

  [Symbol.dispose](): void {
    for (const parameter of this.parameters()) parameter[Symbol.dispose]()
  }
}

function collect(value: unknown, name: string, found: Map<string, Parameter>): void {
  if (value instanceof Parameter) {
    found.set(name, value)
  } else if (value instanceof Module) {
    for (const [inner, parameter] of value.namedParameters(`${name}.`)) found.set(inner, parameter)
  } else if (Array.isArray(value)) {
    for (const [index, item] of value.entries()) collect(item, `${name}.${index}`, found)
  }
}
