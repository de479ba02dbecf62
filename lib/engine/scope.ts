import { AsyncLocalStorage } from 'node:async_hooks'
import { DpMoeError } from '../errors.js'
import { Tensor } from './tensor.js'

const AsyncFunction = (async () => {}).constructor as new () => object

/** Tensors made while a scope was the innermost one. */
export class Scope {
  readonly #tensors = new Set<Tensor>()
  ended = false

  constructor(readonly parent: Scope | undefined) {}

  add(tensor: Tensor): void {
    this.#tensors.add(tensor)
  }

  remove(tensor: Tensor): void {
    this.#tensors.delete(tensor)
  }

  /** Frees everything but the tensors in `result`, which go to the scope around this one. */
  end(result?: unknown): void {
    this.ended = true
    let outer = this.parent
    while (outer?.ended) outer = outer.parent
    visitTensors(result, (tensor) => {
      if (this.#tensors.delete(tensor)) outer?.add(tensor)
    })
    for (const tensor of this.#tensors) tensor[Symbol.dispose]()
    this.#tensors.clear()
  }
}

/**
 * The innermost scope of a device. A synchronous scope is the innermost one until it returns; an asynchronous one follows
 * its function through every await, so that several may be under way at once.
 */
export class Scopes {
  readonly #asynchronous = new AsyncLocalStorage<Scope>()
  #synchronous: Scope | undefined

  get current(): Scope | undefined {
    return this.#synchronous ?? this.#asynchronous.getStore()
  }

  run<T>(body: () => T): T {
    if (body instanceof AsyncFunction) {
      throw new DpMoeError('INVALID_ARGUMENT', 'device.scope: expected a synchronous function; use device.scopeAsync')
    }
    const around = this.#synchronous
    const scope = new Scope(this.current)
    this.#synchronous = scope
    try {
      const result = body()
      scope.end(result)
      return result
    } catch (error) {
      scope.end()
      throw error
    } finally {
      this.#synchronous = around
    }
  }

  async runAsync<T>(body: () => Promise<T>): Promise<T> {
    const scope = new Scope(this.current)
    const around = this.#synchronous
    this.#synchronous = undefined
    let pending: Promise<T>
    try {
      pending = this.#asynchronous.run(scope, body)
    } catch (error) {
      scope.end()
      throw error
    } finally {
      this.#synchronous = around
    }
    try {
      const result = await pending
      scope.end(result)
      return result
    } catch (error) {
      scope.end()
      throw error
    }
  }
}

/** Calls `visit` for the tensors in a value, in arrays and in plain objects, at any depth. */
function visitTensors(value: unknown, visit: (tensor: Tensor) => void, seen = new Set<unknown>()): void {
  if (value instanceof Tensor) {
    visit(value)
  } else if (Array.isArray(value) || isPlainObject(value)) {
    if (seen.has(value)) return
    seen.add(value)
    for (const item of Object.values(value)) {
      if (typeof item === 'object') visitTensors(item, visit, seen)
    }
  }
}

function isPlainObject(value: unknown): value is object {
  return typeof value === 'object' && value !== null && Object.getPrototypeOf(value) === Object.prototype
}
