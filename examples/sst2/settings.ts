import type { TrainOptions } from '../../lib/index.js'

/** The longest sentence of SST-2 in tokens. */
export const common = { maxLength: 64 } as const

/** Adapters on the attention of every layer, and the paper's bound on a sentence's gradient. */
export const adapters = {
  trainable: 'lora',
  loraTargets: ['attention'],
  maxGradNorm: 1,
  loraRank: 8,
  loraAlpha: 8,
  learningRate: 8e-3,
} as const satisfies Partial<TrainOptions>

/** How to fine-tune MiniLM on SST-2 with privacy, four passes; docs/paper.md says how it was found. */
export const privateSettings: Partial<TrainOptions> = {
  ...common,
  ...adapters,
  expectedBatchSize: 2048,
  steps: 131,
}

/** The same without privacy. */
export const nonPrivateSettings: Partial<TrainOptions> = {
  ...common,
  nonPrivate: true,
  trainable: 'all',
  learningRate: 1e-4,
  expectedBatchSize: 64,
  epochs: 2,
}

/** Of the pretrained model: MiniLM was made for the mean over a sentence's tokens. */
export const modelSettings = { pooling: 'mean' } as const

/** MiniLM's feed-forward parts become mixtures of 8 experts, one a token, in every second layer. */
export const upcycling = { numExperts: 8, expertsPerToken: 1 } as const
