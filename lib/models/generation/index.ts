export {
  type GeneratedToken,
  type GenerationOptions,
  type GenerativeModel,
  generate,
  generateTokens,
} from './generate.js'
export { KeyValueCache } from './key-value-cache.js'
export { chooseToken, type SamplingOptions } from './sampling.js'
export { type GeneratedText, type TextGenerationOptions, TextGenerator } from './text-generator.js'
