export { downloadModel, type HubOptions, type HubProgress, isHubName, modelFolder } from './download.js'
