import type { Parameter } from '../autograd/parameter.js'
import { MixtureOfExperts } from '../nn/mixture-of-experts.js'
import type { BertClassifier } from './bert.js'
import { TensorMap } from './hugging-face/tensor-map.js'

interface Affine {
  readonly weight: Parameter
  readonly bias: Parameter | undefined
}

/** The tensors of BertForSequenceClassification; those of BertModel and older spellings are read as well. */
export function bertTensorMap({ encoder, pooler, head }: BertClassifier): TensorMap {
  const map = new TensorMap()
  const both = (name: string, { weight, bias }: Affine, optional = false) =>
    map.add(`${name}.weight`, weight, { optional }).add(`${name}.bias`, bias, { optional })
  const embeddings = 'bert.embeddings'
  map.add(`${embeddings}.word_embeddings.weight`, encoder.wordEmbedding.weight)
  map.add(`${embeddings}.position_embeddings.weight`, encoder.positionEmbedding.weight)
  map.add(`${embeddings}.token_type_embeddings.weight`, encoder.tokenTypeEmbedding.weight)
  both(`${embeddings}.LayerNorm`, encoder.embeddingNorm)
  for (const [index, layer] of encoder.layers.entries()) {
    const { query, key, value, output } = layer.attention
    const prefix = `bert.encoder.layer.${index}`
    both(`${prefix}.attention.self.query`, query)
    both(`${prefix}.attention.self.key`, key)
    both(`${prefix}.attention.self.value`, value)
    both(`${prefix}.attention.output.dense`, output)
    both(`${prefix}.attention.output.LayerNorm`, layer.attentionNorm)
    if (layer.feedForward instanceof MixtureOfExperts) {
      addMixture(map, `${prefix}.mixture`, layer.feedForward)
    } else {
      both(`${prefix}.intermediate.dense`, layer.feedForward.up)
      both(`${prefix}.output.dense`, layer.feedForward.down)
    }
    both(`${prefix}.output.LayerNorm`, layer.feedForwardNorm)
  }
  if (pooler) both('bert.pooler.dense', pooler, true)
  else map.ignore(/^(bert\.)?pooler\./)
  both('classifier', head, true)
  return map
    .rename(/^(embeddings|encoder|pooler)\./, 'bert.$1.')
    .rename(/LayerNorm\.gamma$/, 'LayerNorm.weight')
    .rename(/LayerNorm\.beta$/, 'LayerNorm.bias')
    .ignore(/^cls\./, /embeddings\.position_ids$/)
}

/** The experts of an upcycled layer, each with the tensors of a feed-forward part. */
function addMixture(map: TensorMap, prefix: string, mixture: MixtureOfExperts): void {
  const { router, up, upBias, down, downBias } = mixture
  const name = (tensor: string) => (expert: number) => `${prefix}.experts.${expert}.${tensor}`
  map.add(`${prefix}.router.weight`, router.weight)
  map.addExperts(name('intermediate.dense.weight'), up).addExperts(name('intermediate.dense.bias'), upBias!)
  map.addExperts(name('output.dense.weight'), down).addExperts(name('output.dense.bias'), downBias!)
}
