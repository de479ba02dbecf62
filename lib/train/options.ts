import type { NeighboringRelation } from '../accounting/index.js'
import type { DeviceName, Precision } from '../engine/device.js'
import type { DatasetSplit, HubProgress } from '../hub/index.js'
import type { PretrainedTask } from '../models/model-from-pretrained.js'
import type { AdapterTarget, TrainableChoice } from '../nn/trainable.js'
import type { ClippingMode } from '../privacy/clipping.js'
import type { ColumnOptions } from './columns.js'

/** Everything a training run is told. Flags of `dp-moe train` and keys of its --config file have the same names. */
export interface TrainOptions extends ColumnOptions {
  /**
   * What the model is to do. 'classification': give a text a class. 'causal-lm' (Mixtral, OLMoE, Qwen3-MoE): continue a text, or
   * complete a prompt. 'seq2seq' (Switch Transformer): answer a text with another. The last two start from `model: { pretrained }`.
   * Default 'classification'.
   */
  task?: PretrainedTask
  /** Training file, or several: JSONL, CSV, TSV or Parquet. Needed without `dataset`. */
  train?: string | readonly string[]
  /**
   * A data set of the hub in place of `train`: owner/name or owner/name/part, such as glue/sst2. Its split 'train' is trained on; its
   * split 'validation', where there is one, is the default of `validation`. Class names that it states are the default of `labels`.
   */
  dataset?: string
  /** Branch, tag or commit of `dataset`. Default 'main'. */
  datasetRevision?: string
  /** Validation file, or several, or the fraction of the training data set aside by a fixed public rule. Default: none. */
  validation?: string | readonly string[] | number
  /** Class names by number: an integer in the label column stands for one. Default: as `dataset` or a Parquet file states. */
  labelNames?: readonly string[]
  /**
   * Column that says whose an example is. The unit of privacy is then the user: all of a user's examples together are one
   * unit, sampled, clipped and counted as one. Default: every example is a unit.
   */
  group?: string
  /** With `group`: examples kept of a user, the first ones; a public constant. Default 16. */
  maxExamplesPerUser?: number
  /** Run folder to make. */
  output: string
  /** Replace what the run folder holds. Default false: an existing run is refused. */
  overwrite?: boolean
  /** Go on from the last checkpoint of the run folder. */
  resume?: boolean

  /** Train without privacy. */
  nonPrivate?: boolean
  /** Privacy budget; sigma is solved for. One of targetEpsilon and noiseMultiplier is needed in private training. */
  targetEpsilon?: number
  /** Default: 1 / N under zero-out; must be given under add-or-remove-one. */
  targetDelta?: number
  /** sigma, in units of maxGradNorm, in place of targetEpsilon. */
  noiseMultiplier?: number
  /** Default 'zero-out'. */
  relation?: NeighboringRelation
  /** L2 bound of one example's gradient. Default: chosen with the model. */
  maxGradNorm?: number
  /** Default 'flat'. */
  clipping?: ClippingMode
  /** Divisor of the noised sum; with zero-out also sampleRate * N. Default: by N. */
  expectedBatchSize?: number
  /** Passes over the data, in expectation. Default: by N. Not with add-or-remove-one. */
  epochs?: number
  /** Probability of an example to be in a batch. Default: expectedBatchSize / N; must be given under add-or-remove-one. */
  sampleRate?: number
  /** Default: from epochs; must be given under add-or-remove-one. */
  steps?: number

  /** Public statement of the label set. Default: the names found, listed in the certificate as treated as public. */
  labels?: readonly string[]
  /** Public statement of the longest text in tokens; longer ones are cut. Default 1024, with attention 256. */
  maxLength?: number
  /** A Hugging Face tokenizer.json; default: word hashing. */
  tokenizer?: string
  /**
   * Overrides of the model's defaults, by the names of config.json, e.g. numExperts, hiddenSize. With `pretrained`, a folder or
   * owner/name on the hub (for classes BERT, an upcycled BERT, the encoder of a Switch Transformer), training starts from that
   * model; its settings are balanceLoss, releaseLoad, trainRouter and dropout (a Switch Transformer has no releaseLoad and
   * trainRouter, a decoder balanceLoss only).
   */
  model?: Readonly<Record<string, number | string | boolean>>
  /** Which parameters train; clipping and noise see only those. Default 'all'. */
  trainable?: TrainableChoice
  /** With trainable 'lora': rank of the adapters. Default 8. */
  loraRank?: number
  /** With trainable 'lora': the adapters' product is scaled by alpha / rank. Default 16. */
  loraAlpha?: number
  /** With trainable 'lora': what gets adapters. Default attention and experts, which are the feed-forward parts, dense ones too. */
  loraTargets?: readonly AdapterTarget[]
  /**
   * With trainable 'lora': numbers, from 0, of the layers that get adapters; below the lowest of them no gradient is computed
   * (but in a decoder, for the encoder that it reads), which saves time. Default: all.
   */
  loraLayers?: readonly number[]
  /**
   * With trainable 'lora' on a pretrained model: what is released. 'merged': a model with plain weights; 'adapters': the adapters
   * and the head alone, in the layout of PEFT, to be merged or loaded beside the model that they belong to. Default 'merged'.
   */
  release?: 'merged' | 'adapters'
  /** Peak learning rate. Default: chosen with the model. */
  learningRate?: number
  /** Makes the run replayable and not private. */
  seed?: number
  /** 32 secret bytes kept outside the run folder: a private run that can be replayed after a crash. */
  keyFile?: string

  /** Where ops run: 'cpu', 'cuda' or 'cuda:N'. Default 'cpu'. */
  device?: DeviceName
  /** What activations are stored in; 'bfloat16' on CUDA only. Default 'float32'. */
  precision?: Precision
  /** Of the CPU. Default: what the container allows. */
  threads?: number
  /**
   * Upper bound on the rows of a micro-batch, and so on the memory of a step, whatever the size of the batch. An example of
   * more rows is a micro-batch by itself. Default: from `memoryBudget`.
   */
  maxTokensPerMicrobatch?: number
  /**
   * Keep only the inputs of each layer and compute the layer once more for its gradients (gradient checkpointing): less
   * memory, the same model bit for bit, and a private step takes nearly twice as long. Default false.
   */
  activationCheckpointing?: boolean
  /** Bytes that activations may take. Default 1 GiB. */
  memoryBudget?: number
  /** Steps between checkpoints. Default: about every tenth of the run. */
  checkpointEvery?: number

  /** How far the download of a model or a data set is. */
  onDownload?: (progress: HubProgress) => void
  /** Called after every step and at the end. Its losses and speeds are private values. */
  onProgress?: (progress: TrainProgress) => void
  /** Human-readable lines about what was chosen (defaults, warnings). */
  onMessage?: (message: TrainMessage) => void
  /** Stops between steps, with a checkpoint. */
  signal?: AbortSignal
}

/** Every name of {@link TrainOptions}: another one is a slip that would silently leave a default in force. */
export const trainOptionNames: Readonly<Record<keyof TrainOptions, true>> = {
  task: true,
  train: true,
  dataset: true,
  datasetRevision: true,
  labelNames: true,
  onDownload: true,
  validation: true,
  text: true,
  label: true,
  prompt: true,
  completion: true,
  source: true,
  target: true,
  group: true,
  maxExamplesPerUser: true,
  output: true,
  overwrite: true,
  resume: true,
  nonPrivate: true,
  targetEpsilon: true,
  targetDelta: true,
  noiseMultiplier: true,
  relation: true,
  maxGradNorm: true,
  clipping: true,
  expectedBatchSize: true,
  epochs: true,
  sampleRate: true,
  steps: true,
  labels: true,
  maxLength: true,
  tokenizer: true,
  model: true,
  trainable: true,
  loraRank: true,
  loraAlpha: true,
  loraTargets: true,
  loraLayers: true,
  release: true,
  learningRate: true,
  seed: true,
  keyFile: true,
  device: true,
  precision: true,
  threads: true,
  maxTokensPerMicrobatch: true,
  activationCheckpointing: true,
  memoryBudget: true,
  checkpointEvery: true,
  onProgress: true,
  onMessage: true,
  signal: true,
}

/** What may be chosen where another text would change in silence what is trained or released. */
export const trainChoices = {
  task: ['classification', 'causal-lm', 'seq2seq'],
  trainable: ['all', 'head', 'bias', 'lora'],
  release: ['merged', 'adapters'],
} as const satisfies { readonly [name in keyof TrainOptions]?: readonly TrainOptions[name][] }

/** A line about what was chosen, or a warning. */
export interface TrainMessage {
  readonly level: 'info' | 'warning'
  readonly text: string
}

/** Tells what was chosen, or warns. */
export type Say = (level: TrainMessage['level']) => (text: string) => void

/** Where a run stands after a step. */
export interface TrainProgress {
  /** Steps made. */
  readonly step: number
  readonly steps: number
  /** Exponentially smoothed mean loss of the batches; private. */
  readonly loss: number
  readonly examplesPerSecond: number
  /** Budget spent so far; undefined without privacy. */
  readonly epsilon: number | undefined
  readonly secondsLeft: number
}

/** What a finished run has made and spent. */
export interface TrainResult {
  /** The run folder: its `release/` holds the model and the certificate. */
  readonly output: string
  readonly private: boolean
  readonly examples: number
  /** Users, the units of privacy; undefined where every example is a unit. */
  readonly users: number | undefined
  readonly steps: number
  readonly seconds: number
  readonly epsilon: number | undefined
  readonly delta: number | undefined
  readonly noiseMultiplier: number | undefined
  /** Un-noised accuracy and loss on the validation data: private values. */
  readonly validation: EvaluationResult | undefined
}

/** How well a model does on data, computed without noise. */
export interface EvaluationResult {
  /** Fraction of the examples whose most probable class is theirs; of a language model, of the tokens to predict. */
  readonly accuracy: number
  /** Mean cross entropy of an example; of a language model, of a token. */
  readonly loss: number
  readonly examples: number
  /** Of a language model: tokens to predict in all examples. */
  readonly tokens?: number
  /** Of a language model: exp(loss). */
  readonly perplexity?: number
  /** Of a data set of the hub: the split that was measured on. */
  readonly split?: DatasetSplit
}
