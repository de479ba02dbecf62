import { OutOfRangeError } from '../../errors.js'

/** How the next token is chosen from its scores. */
export interface SamplingOptions {
  /** Scores are divided by it; 0, the default, takes the highest score (greedy). */
  readonly temperature?: number
  /** Only the k highest scores. Default: all. */
  readonly topK?: number
  /** Only the most probable tokens that together have at least this probability (arXiv 1904.09751). Default 1: all. */
  readonly topP?: number
}

/** @throws OutOfRangeError naming the option */
export function checkSampling({ temperature = 0, topK, topP = 1 }: SamplingOptions): void {
  if (!(temperature >= 0 && Number.isFinite(temperature))) {
    throw new OutOfRangeError('temperature', 'a finite number >= 0', temperature)
  }
  if (topK !== undefined && !(Number.isInteger(topK) && topK >= 1)) {
    throw new OutOfRangeError('topK', 'an integer >= 1', topK)
  }
  if (!(topP > 0 && topP <= 1)) throw new OutOfRangeError('topP', 'a number in (0, 1]', topP)
}

/**
 * Chooses a token. Ties go to the lower one, in greedy choice as in what topK and topP keep.
 *
 * @param scores logits [vocabulary]; what is not finite is never chosen, unless nothing is finite: then token 0
 * @param uniform a number in [0, 1)
 */
export function chooseToken(
  scores: Float32Array,
  { temperature = 0, topK = scores.length, topP = 1 }: SamplingOptions,
  uniform: () => number,
): number {
  const finite = Array.from(scores.keys()).filter((token) => Number.isFinite(scores[token]))
  if (temperature === 0) {
    return finite.reduce((best, token) => (scores[token]! > (scores[best] ?? 0) ? token : best), finite[0] ?? 0)
  }
  const ordered = finite.sort((a, b) => scores[b]! - scores[a]! || a - b).slice(0, topK)
  if (ordered.length === 0) return 0
  const highest = scores[ordered[0]!]!
  const weights = ordered.map((token) => Math.exp((scores[token]! - highest) / temperature))
  const all = weights.reduce((sum, weight) => sum + weight, 0)
  let kept = 0
  let count = 0
  while (count < ordered.length && kept < topP * all) kept += weights[count++]!
  let rest = uniform() * kept
  for (let place = 0; place < count; place++) {
    rest -= weights[place]!
    if (rest < 0) return ordered[place]!
  }
  return ordered[count - 1]!
}

/** Numbers in [0, 1) from a seed: the same on every machine (mulberry32). For choosing tokens, never for noise. */
export function seededUniform(seed: number): () => number {
  let state = seed >>> 0
  return () => {
    state = (state + 0x6d2b79f5) >>> 0
    let mixed = Math.imul(state ^ (state >>> 15), state | 1)
    mixed ^= mixed + Math.imul(mixed ^ (mixed >>> 7), mixed | 61)
    return ((mixed ^ (mixed >>> 14)) >>> 0) / 2 ** 32
  }
}
