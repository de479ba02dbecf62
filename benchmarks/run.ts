import { execFile } from 'node:child_process'
import { existsSync } from 'node:fs'
import { mkdir, writeFile } from 'node:fs/promises'
import { cpus } from 'node:os'
import { promisify } from 'node:util'

/**
 * Runs every benchmark and writes benchmarks/results/NAME.json.
 *
 *     npm run bench [NAME...]
 *
 * Names: steps, step-models, gemm, event-loop, memory, step-memory, model-files, noise; all by default. Each program runs alone,
 * so that its peak memory is its own. `steps` times PyTorch and Opacus too where a Python with both is found (DP_MOE_PYTHON, else python3); `gemm` needs
 * cmake, a compiler and OpenBLAS. What is missing is said and left out.
 */
type Row = Readonly<Record<string, unknown>>

const run = promisify(execFile)
const python = process.env.DP_MOE_PYTHON ?? 'python3'
// OpenBLAS picks its own kernels, and its idle threads spin for 2^20 cycles instead of 2^26, which would hold a core of
// ours; malloc keeps its pages, or per-sample gradients of PyTorch pay for page faults.
const { OPENBLAS_CORETYPE: _core, OPENBLAS_L2_SIZE: _cache, ...inherited } = process.env
const env = {
  ...inherited,
  OPENBLAS_THREAD_TIMEOUT: '20',
  MALLOC_MMAP_THRESHOLD_: '4294967296',
  MALLOC_TRIM_THRESHOLD_: '4294967296',
}

async function rowsOf(command: string, ...args: string[]): Promise<Row[]> {
  const { stdout } = await run(command, args, { env, maxBuffer: 2 ** 26 })
  return stdout
    .split('\n')
    .filter((line) => line.startsWith('{'))
    .map((line) => JSON.parse(line) as Row)
}

const script = (file: string, ...args: string[]) =>
  rowsOf(process.execPath, '--expose-gc', '--import', 'tsx', `benchmarks/${file}.ts`, ...args)

async function havePeers(): Promise<boolean> {
  try {
    await run(python, ['-c', 'import torch, opacus'], { env })
    return true
  } catch {
    console.log(`${python} has no torch and opacus: PyTorch and Opacus are left out (set DP_MOE_PYTHON)`)
    return false
  }
}

async function steps(): Promise<Row[]> {
  const rows: Row[] = []
  const peers = await havePeers()
  for (const threads of ['1', '2']) {
    const pair = await script('step', 'plain,private', threads, '30')
    const [plain, priv] = pair as [Row, Row]
    const alone = [
      (await script('step', 'plain', threads, '3'))[0]!,
      (await script('step', 'private', threads, '3'))[0]!,
    ]
    const ours = [plain, priv].map((row, index) => ({
      ...row,
      peakMb: alone[index]!.peakMb,
      ofPlain: round(Number(row.medianMs) / Number(plain.medianMs)),
      ofFlopLimit: round(Number(row.minMs) / Number(row.flopLimitMs)),
    }))
    rows.push(...ours)
    if (!peers) continue
    for (const method of ['plain', 'ghost', 'samples']) {
      const [row] = await rowsOf(python, 'benchmarks/peers/torch_moe.py', method, threads, '15')
      rows.push({ ...row!, ofPlain: round(Number(row!.medianMs) / Number(plain.medianMs)) })
    }
  }
  return rows
}

async function gemm(): Promise<Row[]> {
  const folder = 'build-bench'
  await run('cmake', ['-S', '.', '-B', folder, '-DCMAKE_BUILD_TYPE=Release', '-DDP_MOE_BENCHMARKS=ON'], { env })
  await run('cmake', ['--build', folder, '-j', String(cpus().length)], { env, maxBuffer: 2 ** 26 })
  const program = `${folder}/dp-moe-gemm`
  if (!existsSync(program)) {
    console.log('no OpenBLAS with its headers: gemm is left out')
    return []
  }
  return [...(await rowsOf(program, '--threads', '1')), ...(await rowsOf(program, '--threads', '2'))]
}

const round = (value: number) => Math.round(1000 * value) / 1000

const benchmarks: Readonly<Record<string, () => Promise<Row[]>>> = {
  steps,
  'step-models': () => script('step-models'),
  gemm,
  'event-loop': () => script('event-loop', '2', '15'),
  memory: () => script('memory'),
  'step-memory': () => script('step-memory'),
  'model-files': () => script('model-files'),
  noise: () => script('noise'),
}

const shorten = (value: unknown) =>
  typeof value === 'number' ? Number(value.toPrecision(4)) : typeof value === 'object' ? JSON.stringify(value) : value

const names = process.argv.slice(2)
for (const name of names.length > 0 ? names : Object.keys(benchmarks)) {
  const benchmark = benchmarks[name]
  if (!benchmark) {
    console.error(`No benchmark ${name}: expected ${Object.keys(benchmarks).join(', ')}`)
    process.exit(2)
  }
  console.log(`\n${name}`)
  const rows = await benchmark()
  const machine = { processor: cpus()[0]?.model, cores: cpus().length, node: process.version }
  await mkdir('benchmarks/results', { recursive: true })
  await writeFile(`benchmarks/results/${name}.json`, `${JSON.stringify({ machine, rows }, undefined, 2)}\n`)
  console.table(rows.map((row) => Object.fromEntries(Object.entries(row).map(([key, value]) => [key, shorten(value)]))))
}
