import { execFileSync } from 'node:child_process'
import { copyFileSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { fileURLToPath } from 'node:url'

const build = fileURLToPath(new URL('../../build', import.meta.url))
const variables = ['DP_MOE_CUDA_DRIVER', 'DP_MOE_CUDA_FATBIN', 'DP_MOE_CUDA_SYNC', 'DP_MOE_EMULATION_FAULTS'] as const

type Environment = Partial<Record<(typeof variables)[number], string>>

/** Emulated CUDA devices (cuda/emulation), built beside the addon. */
export class EmulatedCuda {
  readonly #before = { ...process.env }
  readonly #copies = mkdtempSync(join(tmpdir(), 'dp-moe-emulated-'))
  readonly #library: string
  #count = 0

  constructor() {
    cmake('-DDP_MOE_EMULATION=ON', build)
    cmake('--build', build, '--target', 'dp_moe_emulated_cuda', '--parallel', '2')
    this.#library = this.#newFile()
    copyFileSync(join(build, 'libdp-moe-emulated-cuda.so'), this.#library)
  }

  /** Lets `Device.open('cuda')` find a new machine, which behaves as `faults` says (cuda/emulation/settings.h). */
  use(faults = '', others: Environment = {}): void {
    // npm run test:cuda, where there is a device: what asks for no fault is tested on it.
    if (process.env.DP_MOE_TEST_CUDA === 'device' && faults === '') {
      this.restore()
      return
    }
    // A library keeps its state for as long as the process lives; a copy of it has its own.
    const driver = this.#newFile()
    copyFileSync(this.#library, driver)
    this.#set(driver, { DP_MOE_EMULATION_FAULTS: faults, ...others })
  }

  /** Lets the driver be this C++. */
  useSource(source: string): void {
    const driver = this.#newFile()
    const compiler = process.env.CXX ?? 'c++'
    execFileSync(compiler, ['-shared', '-fPIC', '-x', 'c++', '-', '-o', driver], { input: source })
    this.#set(driver)
  }

  /** The environment as it was. */
  restore(): void {
    for (const name of variables) {
      const value = this.#before[name]
      if (value === undefined) delete process.env[name]
      else process.env[name] = value
    }
  }

  #newFile(): string {
    return join(this.#copies, `libcuda-${this.#count++}.so`)
  }

  #set(driver: string, others: Environment = {}): void {
    this.restore()
    const fatbin = join(build, 'dp-moe-emulated.fatbin')
    Object.assign(process.env, { DP_MOE_CUDA_DRIVER: driver, DP_MOE_CUDA_FATBIN: fatbin, ...others })
  }

  remove(): void {
    this.restore()
    rmSync(this.#copies, { recursive: true })
  }
}

function cmake(...args: string[]): void {
  execFileSync('cmake', args, { stdio: ['ignore', 'ignore', 'inherit'] })
}
