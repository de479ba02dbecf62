import { DpMoeError, invalid } from '../errors.js'
import { HuggingFaceTokenizer } from './hugging-face-tokenizer.js'
import type { Tokenizer, TokenizerConfig } from './tokenizer.js'
import { WordHashTokenizer } from './word-hash-tokenizer.js'

/**
 * Builds a tokenizer again from what its `toJSON` gave.
 *
 * @throws DpMoeError with code MODEL_FORMAT for a type that is not known, OutOfRangeError for a bad number
 */
export function tokenizerFromJson(config: TokenizerConfig): Tokenizer {
  switch (config.type) {
    case 'word-hash':
      return new WordHashTokenizer(config)
    case 'hugging-face':
      return new HuggingFaceTokenizer(config.tokenizer, config)
    default: {
      const { type } = config as { type: unknown }
      throw new DpMoeError('MODEL_FORMAT', invalid('the tokenizer type', "'word-hash' or 'hugging-face'", type))
    }
  }
}
