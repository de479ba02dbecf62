#pragma once

#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

struct AttentionShape {
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
};

/// Without keyOffsets the keys are the queries' rows; without bias span is 0.
struct AttentionOperands {
  std::vector<float> q, k, v, dy;
  std::vector<int32_t> keyOffsets = {};
  std::vector<float> bias = {};
  int64_t span = 0;
};

/// Operands as T stores them.
template <class T>
AttentionOperands attentionOperands(Random& random, int64_t rows, const AttentionShape& s) {
  const int64_t queries = rows * s.heads * s.headSize, keys = rows * s.keyValueHeads * s.headSize;
  return {rounded<T>(random.normals(queries)), rounded<T>(random.normals(keys)), rounded<T>(random.normals(keys)),
          rounded<T>(random.normals(queries))};
}

/// With keys of their own number and a bias.
template <class T>
AttentionOperands attentionOperands(Random& random, int64_t rows, std::vector<int32_t> keyOffsets, int64_t span,
                                    const AttentionShape& s) {
  const int64_t queries = rows * s.heads * s.headSize, keys = keyOffsets.back() * s.keyValueHeads * s.headSize;
  return {rounded<T>(random.normals(queries)),
          rounded<T>(random.normals(keys)),
          rounded<T>(random.normals(keys)),
          rounded<T>(random.normals(queries)),
          std::move(keyOffsets),
          random.normals(std::max<int64_t>(0, 2 * span - 1) * s.heads),
          span};
}

template <class T>
struct AttentionResults {
  std::vector<T> y, logSumExp, dq, dk, dv, dBias;
};

/// Both passes, with activations stored as T.
template <class T>
AttentionResults<float> runAttention(const Context& context, const AttentionOperands& x,
                                     const std::vector<int32_t>& offsets, const AttentionShape& s, bool causal) {
  const int64_t rows = offsets.back();
  const auto units = static_cast<int64_t>(offsets.size()) - 1;
  const auto scale = static_cast<float>(1 / std::sqrt(static_cast<double>(s.headSize)));
  const auto q = context.tensor<T>(x.q), k = context.tensor<T>(x.k), v = context.tensor<T>(x.v),
             dy = context.tensor<T>(x.dy);
  const auto offsetsT = context.tensor(offsets);
  const auto result = [&](size_t size) { return context.result<T>(static_cast<int64_t>(size)); };
  const auto y = result(x.q.size()), dq = result(x.q.size()), dk = result(x.k.size()), dv = result(x.v.size());
  const auto logSumExp = context.result<float>(rows * s.heads);
  const auto keyOffsetsT = context.tensor(x.keyOffsets);
  const Input<int32_t> keyOffsets = x.keyOffsets.empty() ? Input<int32_t>{} : Input<int32_t>(keyOffsetsT);
  const auto biasT = context.tensor(x.bias);
  const auto dBiasT = context.result<float>(units * static_cast<int64_t>(x.bias.size()));
  const Input<float> bias = x.span == 0 ? Input<float>{} : Input<float>(biasT);
  const Output<float> dBias = x.span == 0 ? Output<float>{} : Output<float>(dBiasT);
  context.backend().attention({q, k, v, offsetsT, keyOffsets, bias, y, logSumExp, rows, units, s.heads, s.keyValueHeads,
                               s.headSize, x.span, scale, causal});
  context.backend().attentionBackward(
      {dy, q,     k,    v,     y,       logSumExp,       offsetsT,   keyOffsets, bias,  dq,    dk,
       dv, dBias, rows, units, s.heads, s.keyValueHeads, s.headSize, x.span,     scale, causal});
  return {y.floats(), logSumExp.values(), dq.floats(), dk.floats(), dv.floats(), dBiasT.values()};
}

/// The results in float64, and by how much each may be off, per unit of storageError, for what is stored in between:
/// the probabilities and score gradients that enter products, y that enters the backward pass, and the result itself.
struct AttentionReference {
  AttentionResults<double> value, rounding;
};
AttentionReference attentionReference(const AttentionOperands& x, const std::vector<int32_t>& offsets,
                                      const AttentionShape& s, bool causal);

/// Compares all results; `storage` is storageError of the type they are stored in.
void expectAttention(const AttentionResults<float>& got, const AttentionReference& want, double storage,
                     const std::string& name);

}  // namespace dp_moe::conformance
