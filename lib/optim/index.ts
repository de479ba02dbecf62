export { Adam, type AdamOptions, AdamW, adam, adamW, DpAdamBC, type DpAdamBCOptions, dpAdamBC } from './adam.js'
export { Optimizer, type OptimizerOptions, type Update, type UpdateNoise } from './optimizer.js'
export { type Schedule, type ScheduleName, schedule } from './schedules.js'
export { Sgd, type SgdOptions, sgd } from './sgd.js'
