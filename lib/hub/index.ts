export { type DatasetOptions, type DownloadedDataset, downloadDataset, isDatasetName } from './dataset.js'
export type { DatasetSplit } from './dataset-files.js'
export type { HubOptions, HubProgress } from './download.js'
export { downloadModel, isHubName, modelFolder } from './model.js'
