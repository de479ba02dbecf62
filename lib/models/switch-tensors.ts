import { MixtureOfExperts } from '../nn/mixture-of-experts.js'
import { TensorMap } from './hugging-face/tensor-map.js'
import type { SwitchAttention, SwitchStack } from './switch-stack.js'
import type { SwitchEncoderClassifier, SwitchTransformer } from './switch-transformer.js'

const table = 'shared.weight'

/** The tensors of SwitchTransformersForConditionalGeneration. */
export function switchTensorMap({ embedding, encoder, decoder, head, config }: SwitchTransformer): TensorMap {
  const map = new TensorMap().add(table, embedding.weight)
  addStack(map, 'encoder', encoder)
  addStack(map, 'decoder', decoder)
  map.add('lm_head.weight', head?.weight)
  const ends = ['encoder.embed_tokens.weight', 'decoder.embed_tokens.weight']
  map.tie(table, ...ends)
  if (config.tiedHead) map.tie(table, 'lm_head.weight')
  // transformers finds the table of an untied model under the names of its ends only.
  else map.saveAlso(...ends)
  // A table that old checkpoints hold and nothing reads.
  return map.ignore(/^decoder\.block\.0\.layer\.1\.EncDecAttention\.relative_attention_bias\.weight$/)
}

/** The tensors of SwitchTransformersEncoderModel and a head; what a whole model holds beside them is passed over. */
export function switchClassifierTensorMap({ embedding, encoder, head, config }: SwitchEncoderClassifier): TensorMap {
  const map = new TensorMap().add(table, embedding.weight)
  addStack(map, 'encoder', encoder)
  map.add('classifier.weight', head.weight, { optional: true }).add('classifier.bias', head.bias, { optional: true })
  map.tie(table, 'encoder.embed_tokens.weight')
  if (!config.tiedHead) map.saveAlso('encoder.embed_tokens.weight')
  return map.ignore(/^decoder\./, /^lm_head\.weight$/)
}

function addStack(map: TensorMap, stack: string, { layers, relativeBias, norm }: SwitchStack): void {
  const first = `${stack}.block.0.layer.0.SelfAttention`
  map.add(`${first}.relative_attention_bias.weight`, relativeBias.weight)
  for (const [index, layer] of layers.entries()) {
    const part = (number: number) => `${stack}.block.${index}.layer.${number}`
    addAttention(map, `${part(0)}.SelfAttention`, layer.attention)
    map.add(`${part(0)}.layer_norm.weight`, layer.attentionNorm.weight)
    if (layer.crossAttention) addAttention(map, `${part(1)}.EncDecAttention`, layer.crossAttention)
    map.add(`${part(1)}.layer_norm.weight`, layer.crossNorm?.weight)
    const last = part(layer.crossAttention ? 2 : 1)
    map.add(`${last}.layer_norm.weight`, layer.feedForwardNorm.weight)
    const { feedForward } = layer
    if (feedForward instanceof MixtureOfExperts) {
      const { router, up, down } = feedForward
      map.add(`${last}.mlp.router.classifier.weight`, router.weight)
      map.add(`${last}.mlp.router.classifier.bias`, router.bias)
      map.addExperts((expert) => `${last}.mlp.experts.expert_${expert}.wi.weight`, up)
      map.addExperts((expert) => `${last}.mlp.experts.expert_${expert}.wo.weight`, down)
    } else {
      map.add(`${last}.mlp.wi.weight`, feedForward.up.weight).add(`${last}.mlp.wo.weight`, feedForward.down.weight)
    }
  }
  map.add(`${stack}.final_layer_norm.weight`, norm.weight)
}

function addAttention(map: TensorMap, prefix: string, { query, key, value, output }: SwitchAttention): void {
  map.add(`${prefix}.q.weight`, query.weight).add(`${prefix}.k.weight`, key.weight)
  map.add(`${prefix}.v.weight`, value.weight).add(`${prefix}.o.weight`, output.weight)
}
