import type { DpEvent, NeighboringRelation } from './events.js'
import { unknownEvent, unsupportedEvent } from './events.js'
import { MixturePair } from './mixture-pair.js'
import { requireNoiseMultiplier, requireSampleRate } from './numbers.js'

/** Dominating pairs of one event: for the unit taken out, and for the unit put in where that is another pair. */
export interface DirectedPairs {
  readonly remove: MixturePair
  /** Undefined where it is the same pair as `remove`. */
  readonly add: MixturePair | undefined
}

/**
 * The dominating pairs of an event that is no composition; undefined where the event touches no data.
 *
 * Sources: Zhu, Dong, Wang (arXiv 2106.08567) for Poisson sampling under removal and addition; the symmetric mixture
 * of means +1 and -1 for replacement. Gaussian sums move by C (zero-out, add-or-remove-one) or 2 C (replace-one).
 *
 * @throws OutOfRangeError for an event that has no such pair, by name.
 */
export function dominatingPairs(event: DpEvent, relation: NeighboringRelation): DirectedPairs | undefined {
  switch (event.type) {
    case 'gaussian':
      return sampledGaussian(requireNoiseMultiplier(event.noiseMultiplier), 1, relation)
    case 'poisson-sampled': {
      const sampleRate = requireSampleRate(event.sampleRate)
      if (event.event.type !== 'gaussian') {
        throw unsupportedEvent('PLD', event.event, 'Poisson sampling of a Gaussian event only')
      }
      const noiseMultiplier = requireNoiseMultiplier(event.event.noiseMultiplier)
      return sampleRate === 0 ? undefined : sampledGaussian(noiseMultiplier, sampleRate, relation)
    }
    default:
      throw unknownEvent(event)
  }
}

function sampledGaussian(sigma: number, sampleRate: number, relation: NeighboringRelation): DirectedPairs {
  const absent = { weight: 1 - sampleRate, mean: 0 }
  if (relation === 'replace-one') {
    const up = [absent, { weight: sampleRate, mean: 1 }]
    const down = [absent, { weight: sampleRate, mean: -1 }]
    return { remove: new MixturePair(sigma, up, down), add: undefined }
  }
  const without = [{ weight: 1, mean: 0 }]
  const remove = new MixturePair(sigma, [absent, { weight: sampleRate, mean: 1 }], without)
  if (sampleRate === 1) return { remove, add: undefined }
  // Mirrored, so that the loss still increases in x.
  const add = new MixturePair(sigma, without, [absent, { weight: sampleRate, mean: -1 }])
  return { remove, add }
}
