import { MixtureOfExperts } from '../nn/mixture-of-experts.js'
import type { Decoder, DecoderLayer } from './decoder.js'
import { decoderSwitches } from './decoder-kinds.js'
import { TensorMap } from './hugging-face/tensor-map.js'

/** The tensors of Mixtral, OLMoE and Qwen3-MoE, one per expert; those of transformers 5, fused, are read as well. */
export function decoderTensorMap({ config, embedding, layers, norm, head }: Decoder): TensorMap {
  const map = new TensorMap()
  map.add('model.embed_tokens.weight', embedding.weight)
  for (const [index, layer] of layers.entries()) addLayer(map, `model.layers.${index}`, layer, config.kind)
  map.add('model.norm.weight', norm.weight).add('lm_head.weight', head?.weight)
  if (config.tiedHead) map.tie('model.embed_tokens.weight', 'lm_head.weight')
  // The rotary frequencies, which older versions saved.
  return map.ignore(/\.rotary_emb\.inv_freq$/)
}

function addLayer(map: TensorMap, prefix: string, layer: DecoderLayer, kind: Decoder['config']['kind']): void {
  const { query, key, value, output, queryNorm, keyNorm } = layer.attention
  for (const [name, { weight, bias }] of Object.entries({ q: query, k: key, v: value, o: output })) {
    map.add(`${prefix}.self_attn.${name}_proj.weight`, weight).add(`${prefix}.self_attn.${name}_proj.bias`, bias)
  }
  map
    .add(`${prefix}.self_attn.q_norm.weight`, queryNorm?.weight)
    .add(`${prefix}.self_attn.k_norm.weight`, keyNorm?.weight)
  map.add(`${prefix}.input_layernorm.weight`, layer.attentionNorm.weight)
  map.add(`${prefix}.post_attention_layernorm.weight`, layer.feedForwardNorm.weight)
  const { feedForward } = layer
  if (!(feedForward instanceof MixtureOfExperts)) {
    map.add(`${prefix}.mlp.gate_proj.weight`, feedForward.gate?.weight)
    map.add(`${prefix}.mlp.up_proj.weight`, feedForward.up.weight)
    map.add(`${prefix}.mlp.down_proj.weight`, feedForward.down.weight)
    return
  }
  const { mixture, projections } = decoderSwitches[kind]
  const [gateName, upName, downName] = projections
  const { router, gate, up, down } = feedForward
  const folder = `${prefix}.${mixture}`
  const experts = Array.from({ length: up.shape[0]! }, (_, expert) => expert)
  const name = (projection: string) => (expert: number) => `${folder}.experts.${expert}.${projection}.weight`
  map.add(`${folder}.gate.weight`, router.weight)
  map.addExperts(name(gateName), gate!).addExperts(name(upName), up).addExperts(name(downName), down)
  const fusedNames = (tensor: string) =>
    [...new Set([mixture, 'mlp'])].map((part) => `${prefix}.${part}.experts.${tensor}`)
  const gateAndUp = experts.flatMap((expert) => [name(gateName)(expert), name(upName)(expert)])
  map.addFused(fusedNames('gate_up_proj'), [gate!, up], gateAndUp)
  map.addFused(fusedNames('down_proj'), [down], experts.map(name(downName)))
  if (mixture !== 'mlp') map.tie(`${folder}.gate.weight`, `${prefix}.mlp.gate.weight`)
}
