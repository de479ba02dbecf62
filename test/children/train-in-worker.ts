import { parentPort, workerData } from 'node:worker_threads'
import type { TrainOptions } from '../../lib/train/options.js'
import { train } from '../../lib/train/train.js'

/** Trains inside a worker thread with the options it is given; says each step, and the result. */
const result = await train({
  ...(workerData as TrainOptions),
  onProgress: ({ step }) => parentPort!.postMessage(step),
})
parentPort!.postMessage(result)
