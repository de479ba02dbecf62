export { merge } from './merge.js'
export type { EvaluationResult, TrainMessage, TrainOptions, TrainProgress, TrainResult } from './options.js'
export { type EvaluateOptions, evaluate, type PredictedLogits, type Prediction, Predictor, predict } from './predict.js'
export { train } from './train.js'
