import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { LedgerSummary } from '../../../lib/privacy/ledger.js'
import { Checkpoint } from '../../../lib/train/checkpoint-format.js'
import type { TrainOptions, TrainResult } from '../../../lib/train/options.js'

/** Options of a private run that takes a moment; `train` is a file of a few hundred lines. */
export function tinyRun(train: string, output: string, more: Partial<TrainOptions> = {}): TrainOptions {
  return {
    train,
    output,
    noiseMultiplier: 1,
    expectedBatchSize: 60,
    steps: 40,
    checkpointEvery: 5,
    threads: 1,
    model: { vocabularySize: 512, hiddenSize: 8, numExperts: 4 },
    ...more,
  }
}

/** The released weights, byte for byte. */
export function releasedWeights(output: string): Buffer {
  return readFileSync(join(output, 'release/model.safetensors'))
}

export const ledgerOf = (output: string) => join(output, 'private/ledger.jsonl')

/** The newest checkpoint of a run that has ended, verified. */
export async function lastCheckpoint(output: string): Promise<{ nextStep: number; updates: number }> {
  const folder = join(output, 'private/checkpoints')
  const newest = readdirSync(folder).sort().at(-1)!
  await using checkpoint = await Checkpoint.open(join(folder, newest))
  const { nextStep, updates } = checkpoint.facts
  return { nextStep, updates }
}

/** Steps that a run with a key of the operating system spent and whose updates are not in its weights. */
export function lostSteps({ segments }: LedgerSummary): number {
  const lostAfter = new Map<number, number>() // a checkpoint resumed from twice lost what came after it once
  let spent = 0
  for (const { checkpointStep, steps } of segments) {
    lostAfter.set(checkpointStep, spent - checkpointStep)
    spent += sum(steps.map(({ count }) => count))
  }
  return sum([...lostAfter.values()])
}

const sum = (values: readonly number[]) => values.reduce((all, value) => all + value, 0)

/** Paths of every file below a folder. */
export function filesBelow(folder: string): string[] {
  return readdirSync(folder, { recursive: true })
    .map((name) => join(folder, String(name)))
    .filter((path) => statSync(path).isFile())
}

/** What a `train-run` child said. */
export interface ChildTalk {
  /** Keys drawn from the operating system, in hex. */
  readonly keys: readonly string[]
  /** Steps that were made, in order. */
  readonly steps: readonly number[]
  readonly result: TrainResult | undefined
  readonly error: string | undefined
  readonly code: string | undefined
}

/** Reads the lines of a `train-run` child. */
export function talkOf(lines: readonly string[]): ChildTalk {
  const said = lines.map((line) => JSON.parse(line) as unknown)
  const objects = said.filter((line) => typeof line === 'object') as {
    key?: string
    result?: TrainResult
    error?: string
    code?: string
  }[]
  return {
    keys: objects.flatMap(({ key }) => key ?? []),
    steps: said.filter((line) => typeof line === 'number'),
    result: objects.find(({ result }) => result)?.result,
    error: objects.find(({ error }) => error)?.error,
    code: objects.find(({ code }) => code)?.code,
  }
}
