import { DpMoeError, invalid } from '../errors.js'
import { addon, type MemoryUse } from './addon.js'
import { type DType, dtypes, sizeOf, type TypedArray } from './dtype.js'
import { Scopes } from './scope.js'
import { type FieldKind, type OpArguments, type OpName, signatures } from './signatures.js'
import { type RowLayout, Tensor } from './tensor.js'

/** `cuda` is the first CUDA device, `cuda:0`. */
export type DeviceName = 'cpu' | 'cuda' | `cuda:${number}`

export type Precision = 'float32' | 'bfloat16'

export interface DeviceOptions {
  /** Of the CPU. Default: DP_MOE_THREADS, else the processors that the process or its container may use. */
  readonly threads?: number
  /** Bytes that tensors may take; more throws OUT_OF_MEMORY. Default: the memory of the machine or container; most of what is free on a CUDA device. */
  readonly memoryLimit?: number
  /** What activations are stored in; arithmetic is in float32 either way. `bfloat16` needs a CUDA device. Default float32. */
  readonly precision?: Precision
}

export interface DeviceInfo {
  readonly name: DeviceName
  /** Kernels in use: `base`, `avx2` or `avx512` on a CPU, DP_MOE_ISA forces one; `sm_90` and such on CUDA. */
  readonly instructionSet: string
  /** Floats per vector register; threads of a warp on CUDA. */
  readonly vectorWidth: number
  /** Threads of the CPU; multiprocessors on CUDA. */
  readonly threads: number
  /** What activations are stored in. */
  readonly precision: Precision
}

export interface TensorOptions {
  /** Default float32. */
  readonly dtype?: DType | undefined
  readonly layout?: RowLayout | undefined
}

const fieldsOf = new Map(
  Object.entries(signatures).map(([op, fields]) => [op, Object.entries(fields) as [string, FieldKind][]]),
)

/** Where the finalizer finds what a dropped tensor held. */
interface Held {
  readonly device: Device
  readonly handle: number
}

const dropped = new FinalizationRegistry<Held>(({ device, handle }) => {
  if (!device.closed) addon().collect(handle)
})

/**
 * A place where tensors live and ops run. Ops are enqueued in order and run on the device's own threads; nothing here
 * waits for them, `await tensor.data()` and `await device.synchronize()` do. An op that fails rejects the next of those
 * two, the ops between are skipped, and the device goes on from there.
 */
export class Device implements Disposable {
  readonly info: DeviceInfo
  readonly #id: number
  readonly #scopes = new Scopes()
  #closed = false
  #failures = 0

  private constructor(id: number, info: DeviceInfo) {
    this.#id = id
    this.info = info
  }

  /**
   * Opens a device. Throws BACKEND_UNAVAILABLE with the reason where it cannot be used here, ADDON_MISSING where the native
   * addon cannot be loaded. A program may open several.
   */
  static open(name: DeviceName = 'cpu', options: DeviceOptions = {}): Device {
    const { precision = 'float32' } = options
    if (precision !== 'float32' && precision !== 'bfloat16') {
      throw new DpMoeError('INVALID_ARGUMENT', invalid('precision', 'float32 or bfloat16', precision))
    }
    const opened = addon().openDevice(name, { ...options, precision: dtypes.indexOf(precision) })
    const { id, instructionSet, vectorWidth, threads } = opened
    return new Device(id, {
      name: name === 'cuda' ? 'cuda:0' : name,
      instructionSet,
      vectorWidth,
      threads,
      precision,
    })
  }

  get name(): DeviceName {
    return this.info.name
  }

  get closed(): boolean {
    return this.#closed
  }

  /**
   * A tensor with the given values; `shape` defaults to one dimension, `dtype` to that of the array (numbers: float32).
   * Values are rounded for a bfloat16 tensor.
   */
  tensor(data: TypedArray | readonly number[], shape?: readonly number[], dtype?: DType): Tensor {
    const array = typedArray(data, dtype)
    const tensor = this.empty(shape ?? [array.length], { dtype: dtype ?? dtypeOf(array) })
    if (tensor.size !== array.length) {
      tensor[Symbol.dispose]()
      const got = `${array.length} values for shape [${tensor.shape.join(', ')}]`
      throw new DpMoeError('SHAPE_MISMATCH', `device.tensor: expected ${tensor.size} values, got ${got}`)
    }
    return tensor.write(array)
  }

  /** A tensor whose contents are undefined until an op writes them. */
  empty(shape: readonly number[], { dtype = 'float32', layout }: TensorOptions = {}): Tensor {
    const handle = addon().allocate(this.#open(), dtypes.indexOf(dtype), sizeOf(shape))
    return new Tensor(this, handle, shape, dtype, layout)
  }

  zeros(shape: readonly number[], options: TensorOptions = {}): Tensor {
    return this.empty(shape, options).fill(0)
  }

  /** Enqueues an op. Throws at once for an operand that is missing, disposed, of another device or of another dtype. */
  run<O extends OpName>(op: O, operands: OpArguments<O>): void {
    const fields = fieldsOf.get(op) as [string, FieldKind][]
    const values = new Array<number | boolean>(fields.length)
    const given = operands as Readonly<Record<string, Tensor | number | boolean | undefined>>
    for (let i = 0; i < fields.length; i++) {
      const [name, kind] = fields[i] as [string, FieldKind]
      const value = given[name]
      values[i] = typeof value === 'number' || typeof value === 'boolean' ? value : this.#operand(op, name, kind, value)
    }
    const call = addon().ops[op] as (device: number, ...fields: (number | boolean)[]) => void
    call(this.#open(), ...values)
  }

  /** Resolves once everything enqueued so far has run; rejects with the error of an op that failed. */
  async synchronize(): Promise<void> {
    await this.counted(addon().synchronize(this.#open()))
  }

  /** How often an op's failure has come out; what was enqueued before it may not have run. */
  get failures(): number {
    return this.#failures
  }

  /** For Tensor: a wait for the device, whose failure is counted. */
  async counted<T>(wait: Promise<T>): Promise<T> {
    try {
      return await wait
    } catch (error) {
      this.#failures++
      throw error
    }
  }

  /** Bytes of this device's tensors. */
  memory(): MemoryUse {
    return addon().memory(this.#open())
  }

  /**
   * Runs `body` and frees every tensor made inside, except those it returns (directly, in arrays or in plain objects) and
   * those handed to `keep`. Returned tensors belong to the scope around this one, if there is one.
   */
  scope<T>(body: () => T): T {
    return this.#scopes.run(body)
  }

  /** As `scope`, for an asynchronous function; ends when its promise settles. Several may be under way at once. */
  scopeAsync<T>(body: () => Promise<T>): Promise<T> {
    return this.#scopes.runAsync(body)
  }

  /** Takes a tensor out of all scopes: it lives until it is disposed. */
  keep(tensor: Tensor): Tensor {
    for (let scope = this.#scopes.current; scope; scope = scope.parent) scope.remove(tensor)
    return tensor
  }

  /**
   * Ends the device: the running op finishes, queued ones are dropped, open promises reject with DISPOSED and every tensor
   * counts as disposed. Doing so twice is harmless.
   */
  close(): void {
    if (this.#closed) return
    this.#closed = true
    addon().closeDevice(this.#id)
  }

  [Symbol.dispose](): void {
    this.close()
  }

  /** For Tensor: notes a new tensor in the current scope and for the garbage collector. */
  track(tensor: Tensor, handle: number): void {
    this.#scopes.current?.add(tensor)
    dropped.register(tensor, { device: this, handle }, tensor)
  }

  /** For Tensor: forgets a tensor that frees itself. */
  untrack(tensor: Tensor): void {
    dropped.unregister(tensor)
  }

  #open(): number {
    if (this.#closed) throw new DpMoeError('DISPOSED', 'The device was used after it was closed')
    return this.#id
  }

  #operand(op: string, name: string, kind: FieldKind, value: Tensor | undefined): number {
    if (value === undefined) {
      if (kind.endsWith('?')) return 0
      throw new DpMoeError('INVALID_ARGUMENT', `${op}: expected ${expected(kind)} for ${name}, got undefined`)
    }
    if (value.device !== this) throw new DpMoeError('INVALID_ARGUMENT', `${op}: ${name} is on another device`)
    if (value.disposed) throw new DpMoeError('DISPOSED', `${op}: ${name} (${value}) was used after it was disposed`)
    if (!accepts(kind, value.dtype)) {
      throw new DpMoeError('SHAPE_MISMATCH', `${op}: expected ${dtypesOfKind(kind)} for ${name}, got ${value}`)
    }
    if (kind.startsWith('output')) value.touch()
    return value.handle
  }
}

function accepts(kind: FieldKind, dtype: DType): boolean {
  return dtypesOfKind(kind).split(' or ').includes(dtype)
}

function expected(kind: FieldKind): string {
  return kind.startsWith('input') || kind.startsWith('output') ? `a tensor of ${dtypesOfKind(kind)}` : kind
}

function dtypesOfKind(kind: FieldKind): string {
  const dtype = kind.replace('?', '').split(':')[1] ?? 'float32'
  return dtype === 'real' ? 'float32 or bfloat16' : dtype
}

function dtypeOf(array: TypedArray): DType {
  return array instanceof Int32Array ? 'int32' : array instanceof Float64Array ? 'float64' : 'float32'
}

function typedArray(data: TypedArray | readonly number[], dtype: DType | undefined): TypedArray {
  if (!Array.isArray(data) && (dtype === undefined || dtype === dtypeOf(data as TypedArray))) return data as TypedArray
  if (dtype === 'int32') return Int32Array.from(data)
  return dtype === 'float64' ? Float64Array.from(data) : Float32Array.from(data)
}
