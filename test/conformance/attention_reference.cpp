#include "attention_reference.h"

#include <algorithm>

namespace dp_moe::conformance {

namespace {

/// One query's keys, probabilities and what its backward pass needs.
struct QueryPass {
  std::vector<double> p, dp;
  double dot = 0;
  double dotRounding = 0;
};

AttentionResults<double> sizedResults(const AttentionOperands& x, size_t rows, size_t units, const AttentionShape& s) {
  AttentionResults<double> result;
  result.y.resize(x.q.size());
  result.dq.resize(x.q.size());
  result.dk.resize(x.k.size());
  result.dv.resize(x.v.size());
  result.logSumExp.resize(rows * static_cast<size_t>(s.heads));
  result.dBias.resize(units * x.bias.size());
  return result;
}

void expectWithin(const std::vector<float>& got, const std::vector<double>& want, const std::vector<double>& rounding,
                  double relative, double absolute, double storage, const std::string& what) {
  expect(got.size() == want.size(), what + ": sizes differ");
  for (size_t i = 0; i < got.size(); ++i) {
    const double off = std::abs(static_cast<double>(got[i]) - want[i]);
    // Products of two roundings are left out of `rounding`: 1 % covers them.
    const double allowed = relative * std::abs(want[i]) + absolute + 1.01 * storage * rounding[i];
    if (!(got[i] == want[i] || off <= allowed)) {
      throw Failure(
          label(what, ": element ", i, ": expected ", want[i], ", got ", got[i], ", off by ", off, " of ", allowed));
    }
  }
}

}  // namespace

AttentionReference attentionReference(const AttentionOperands& x, const std::vector<int32_t>& offsets,
                                      const AttentionShape& s, bool causal) {
  const auto rows = static_cast<size_t>(offsets.back());
  const size_t units = offsets.size() - 1;
  const double scale = 1 / std::sqrt(static_cast<double>(s.headSize));
  AttentionReference reference = {sizedResults(x, rows, units, s), sizedResults(x, rows, units, s)};
  auto& [value, rounding] = reference;
  const auto& keyOffsets = x.keyOffsets.empty() ? offsets : x.keyOffsets;
  for (size_t u = 0; u < units; ++u) {
    const int64_t firstKey = keyOffsets[u], keys = keyOffsets[u + 1] - firstKey;
    const int64_t shift = keys - (offsets[u + 1] - offsets[u]);
    for (int64_t h = 0; h < s.heads; ++h) {
      const auto query = [&](int64_t r, int64_t c) { return static_cast<size_t>((r * s.heads + h) * s.headSize + c); };
      const int64_t keyHead = h / (s.heads / s.keyValueHeads);
      const auto key = [&](int64_t r, int64_t c) {
        return static_cast<size_t>((r * s.keyValueHeads + keyHead) * s.headSize + c);
      };
      for (int64_t i = offsets[u]; i < offsets[u + 1]; ++i) {
        const int64_t position = i - offsets[u] + shift;
        const int64_t last = firstKey + (causal ? std::min(keys, position + 1) : keys);
        const auto biasAt = [&](int64_t j) {
          const int64_t distance = std::clamp(j - firstKey - position, -(x.span - 1), x.span - 1);
          return static_cast<size_t>((distance + x.span - 1) * s.heads + h);
        };
        double& log = value.logSumExp[static_cast<size_t>(i * s.heads + h)];
        if (last <= firstKey) {
          log = -INFINITY;
          continue;
        }
        QueryPass pass;
        for (int64_t j = firstKey; j < last; ++j) {
          double score = x.span == 0 ? 0 : x.bias[biasAt(j)];
          for (int64_t c = 0; c < s.headSize; ++c) score += scale * x.q[query(i, c)] * x.k[key(j, c)];
          pass.p.push_back(score);
        }
        const double top = *std::max_element(pass.p.begin(), pass.p.end());
        double sum = 0;
        for (const double score : pass.p) sum += std::exp(score - top);
        log = top + std::log(sum);
        for (int64_t j = firstKey; j < last; ++j) {
          double& weight = pass.p[static_cast<size_t>(j - firstKey)];
          weight = std::exp(weight - log);
          double product = 0;
          for (int64_t c = 0; c < s.headSize; ++c) {
            value.y[query(i, c)] += weight * x.v[key(j, c)];
            rounding.y[query(i, c)] += weight * std::abs(x.v[key(j, c)]);
            value.dv[key(j, c)] += weight * x.dy[query(i, c)];
            rounding.dv[key(j, c)] += weight * std::abs(x.dy[query(i, c)]);
            product += static_cast<double>(x.dy[query(i, c)]) * x.v[key(j, c)];
          }
          pass.dp.push_back(product);
          pass.dot += weight * product;
        }
        for (int64_t c = 0; c < s.headSize; ++c) {
          rounding.y[query(i, c)] += std::abs(value.y[query(i, c)]);
          pass.dotRounding += std::abs(x.dy[query(i, c)]) * rounding.y[query(i, c)];
        }
        for (int64_t j = firstKey; j < last; ++j) {
          const auto at = static_cast<size_t>(j - firstKey);
          const double dScore = pass.p[at] * (pass.dp[at] - pass.dot);
          const double dotRounding = pass.p[at] * pass.dotRounding;
          if (x.span > 0) {
            value.dBias[u * x.bias.size() + biasAt(j)] += dScore;
            rounding.dBias[u * x.bias.size() + biasAt(j)] += dotRounding;
          }
          const double scoreRounding = std::abs(dScore) + dotRounding;
          for (int64_t c = 0; c < s.headSize; ++c) {
            value.dq[query(i, c)] += scale * dScore * x.k[key(j, c)];
            rounding.dq[query(i, c)] += scale * scoreRounding * std::abs(x.k[key(j, c)]);
            value.dk[key(j, c)] += scale * dScore * x.q[query(i, c)];
            rounding.dk[key(j, c)] += scale * scoreRounding * std::abs(x.q[query(i, c)]);
          }
        }
      }
    }
  }
  const auto addStorage = [](std::vector<double>& error, const std::vector<double>& result) {
    for (size_t i = 0; i < error.size(); ++i) error[i] += std::abs(result[i]);
  };
  addStorage(rounding.dq, value.dq);
  addStorage(rounding.dk, value.dk);
  addStorage(rounding.dv, value.dv);
  return reference;
}

void expectAttention(const AttentionResults<float>& got, const AttentionReference& want, double storage,
                     const std::string& name) {
  const auto& [value, rounding] = want;
  expectWithin(got.y, value.y, rounding.y, 1e-5, 3e-6, storage, "y, " + name);
  expectNear(got.logSumExp, value.logSumExp, 1e-6, 2e-6, "logSumExp, " + name);
  expectWithin(got.dq, value.dq, rounding.dq, 1e-4, 2e-5, storage, "dq, " + name);
  expectWithin(got.dk, value.dk, rounding.dk, 1e-4, 2e-5, storage, "dk, " + name);
  expectWithin(got.dv, value.dv, rounding.dv, 1e-4, 2e-5, storage, "dv, " + name);
  expectWithin(got.dBias, value.dBias, rounding.dBias, 1e-4, 2e-5, storage, "dBias, " + name);
}

}  // namespace dp_moe::conformance
