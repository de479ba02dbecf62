import type { AccountantName } from './accountant.js'
import { upperTailOfBinomial } from './binomial.js'
import { epsilonDelta, fixedSizeSampled, mixtureOfGaussians, truncatedPoissonSampled, zcdp } from './event-builders.js'
import {
  type DpEvent,
  type NeighboringRelation,
  requireEvent,
  type TruncatedPoissonSampledEvent,
  unsupportedEvent,
} from './events.js'
import { BranchedLoss, GaussianLoss, type LossModel } from './loss-model.js'
import { MixturePair } from './mixture-pair.js'
import { requireNoiseMultiplier, requireSampleRate } from './numbers.js'
import { FixedSizeRenyi, ZcdpLoss } from './renyi-only.js'
import { TwoPointLoss } from './two-point-loss.js'

/** Worst privacy losses of one event: for the unit taken out, and for the unit put in where that is another loss. */
export interface DirectedLosses {
  readonly remove: LossModel
  /** Undefined where it is the same loss as `remove`. */
  readonly add: LossModel | undefined
}

/**
 * The worst privacy losses of an event that is no composition; undefined where the event touches no data.
 *
 * Sources: Zhu, Dong, Wang (arXiv 2106.08567) for Poisson sampling under removal and addition; the symmetric mixture
 * of means +1 and -1 for replacement; Chua et al. (arXiv 2411.04205) for truncated batches; Wang, Balle, Kasiviswanathan
 * (arXiv 1808.00087) for fixed-size ones. Gaussian sums move by C (zero-out, add-or-remove-one) or 2 C (replace-one).
 *
 * @throws OutOfRangeError for an event that the accountant cannot handle, by name.
 */
export function directedLosses(
  event: DpEvent,
  relation: NeighboringRelation,
  accountant: AccountantName,
): DirectedLosses | undefined {
  const name = accountant.toUpperCase()
  switch (event.type) {
    case 'gaussian':
      return gaussianLosses(sampledGaussian(requireNoiseMultiplier(event.noiseMultiplier), 1, relation))
    case 'poisson-sampled': {
      const sampleRate = requireSampleRate(event.sampleRate)
      const noiseMultiplier = innerGaussian(event.event, name, 'Poisson sampling')
      return sampleRate === 0 ? undefined : gaussianLosses(sampledGaussian(noiseMultiplier, sampleRate, relation))
    }
    case 'truncated-poisson-sampled': {
      truncatedPoissonSampled(event.sampleRate, event.datasetSize, event.maxBatchSize, event.event)
      const noiseMultiplier = innerGaussian(event.event, name, 'truncated Poisson sampling')
      return event.sampleRate === 0 ? undefined : truncatedGaussian(noiseMultiplier, event, relation)
    }
    case 'fixed-size-sampled': {
      fixedSizeSampled(event.datasetSize, event.batchSize, event.event)
      const noiseMultiplier = innerGaussian(event.event, name, 'fixed-size sampling')
      if (relation !== 'replace-one')
        throw unsupportedEvent(name, event, "fixed-size sampling needs relation 'replace-one'")
      if (accountant !== 'rdp') throw unsupportedEvent(name, event, 'fixed-size sampling: the RDP accountant only')
      return { remove: new FixedSizeRenyi(event.batchSize / event.datasetSize, 2 / noiseMultiplier), add: undefined }
    }
    case 'mixture-of-gaussians': {
      mixtureOfGaussians(event.noiseMultiplier, event.sensitivities, event.probabilities)
      if (relation === 'replace-one') throw unsupportedEvent(name, event, "relation 'zero-out' or 'add-or-remove-one'")
      if (event.sensitivities.every((value, i) => value === 0 || event.probabilities[i] === 0)) return undefined
      const parts = event.sensitivities.map((mean, i) => ({ weight: event.probabilities[i]!, mean }))
      return gaussianLosses(mixtureAgainstNothing(event.noiseMultiplier, parts))
    }
    case 'zcdp':
      if (accountant !== 'rdp') throw unsupportedEvent(name, event, 'zCDP: the RDP accountant only')
      return event.rho === 0 ? undefined : { remove: new ZcdpLoss(zcdp(event.rho).rho), add: undefined }
    case 'epsilon-delta': {
      const { epsilon, delta } = epsilonDelta(event.epsilon, event.delta)
      return epsilon === 0 && delta === 0 ? undefined : { remove: new TwoPointLoss(epsilon, delta), add: undefined }
    }
    default:
      throw unsupportedEvent(name, event, 'a known type that is no composition')
  }
}

function innerGaussian(event: DpEvent, accountant: string, sampling: string): number {
  requireEvent(event)
  if (event.type !== 'gaussian') throw unsupportedEvent(accountant, event, `${sampling} of a gaussian event only`)
  return requireNoiseMultiplier(event.noiseMultiplier)
}

interface DirectedPairs {
  readonly remove: MixturePair
  readonly add: MixturePair | undefined
}

function gaussianLosses({ remove, add }: DirectedPairs): DirectedLosses {
  return { remove: new GaussianLoss(remove), add: add && new GaussianLoss(add) }
}

function sampledGaussian(sigma: number, sampleRate: number, relation: NeighboringRelation): DirectedPairs {
  if (relation === 'replace-one') return { remove: replacement(sigma, sampleRate, 1), add: undefined }
  return mixtureAgainstNothing(sigma, [
    { weight: 1 - sampleRate, mean: 0 },
    { weight: sampleRate, mean: 1 },
  ])
}

function mixtureAgainstNothing(sigma: number, parts: readonly { weight: number; mean: number }[]): DirectedPairs {
  const nothing = [{ weight: 1, mean: 0 }]
  const remove = new MixturePair(sigma, parts, nothing)
  if (remove.numerator.length === 1) return { remove, add: undefined }
  // Mirrored, so that the loss still increases in x.
  const mirrored = parts.map(({ weight, mean }) => ({ weight, mean: -mean }))
  return { remove, add: new MixturePair(sigma, nothing, mirrored) }
}

function replacement(sigma: number, sampleRate: number, shift: number): MixturePair {
  const absent = { weight: 1 - sampleRate, mean: 0 }
  const up = [absent, { weight: sampleRate, mean: shift }]
  const down = [absent, { weight: sampleRate, mean: -shift }]
  return new MixturePair(sigma, up, down)
}

/**
 * With the probability that the batch is full when the unit is drawn, the unit pushes another one out: there the loss is
 * at most that of a replacement of twice the size, as Google's dp_accounting takes it; else it is that of Poisson sampling.
 */
function truncatedGaussian(
  sigma: number,
  event: TruncatedPoissonSampledEvent,
  relation: NeighboringRelation,
): DirectedLosses {
  const { sampleRate, datasetSize, maxBatchSize } = event
  const poisson = sampledGaussian(sigma, sampleRate, relation)
  const full = upperTailOfBinomial(maxBatchSize - 1, datasetSize - 1, sampleRate)
  if (full === 0) return gaussianLosses(poisson)
  const overfull = upperTailOfBinomial(maxBatchSize, datasetSize, sampleRate)
  const kept = Math.min(1, (overfull * maxBatchSize) / (full * datasetSize))
  const replaced = { weight: full, pair: replacement(sigma, kept, 2) }
  const branch = (pair: MixturePair) => new BranchedLoss([{ weight: 1 - full, pair }, replaced])
  return { remove: branch(poisson.remove), add: poisson.add && branch(poisson.add) }
}
