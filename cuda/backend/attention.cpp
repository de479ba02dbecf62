#include "../kernels/attention.h"

#include <string>

#include "checks.h"
#include "cuda_backend.h"
#include "row_grids.h"

namespace dp_moe {

namespace {

using attention::Backward;
using attention::Forward;
using attention::kDotThreads;

constexpr int64_t kMostHeadSize = 256;

template <class P>
void checkAttention(const P& p, const char* op) {
  checkThat(p.heads > 0 && p.keyValueHeads > 0 && p.heads % p.keyValueHeads == 0 && p.headSize > 0, op,
            "heads to be a multiple of keyValueHeads, both and headSize above 0, got " + std::to_string(p.heads) +
                ", " + std::to_string(p.keyValueHeads) + " and " + std::to_string(p.headSize));
  checkThat(p.headSize <= kMostHeadSize, op,
            "a headSize of at most " + std::to_string(kMostHeadSize) + " on CUDA, got " + std::to_string(p.headSize));
  checkSize(p.q, p.rows * p.heads * p.headSize, op, "q");
  const int64_t keyWidth = p.keyValueHeads * p.headSize;
  if (p.keyOffsets.data == nullptr) {
    checkSize(p.k, p.rows * keyWidth, op, "k");
  } else {
    checkColumns(p.k, keyWidth, op, "k");
    checkSize(p.keyOffsets, p.units + 1, op, "keyOffsets");
  }
  checkSize(p.v, p.k.size, op, "v");
  checkSize(p.y, p.rows * p.heads * p.headSize, op, "y");
  checkSize(p.logSumExp, p.rows * p.heads, op, "logSumExp");
  checkSize(p.offsets, p.units + 1, op, "offsets");
  if (p.bias.data == nullptr) return;
  checkThat(p.span > 0, op, "a span above 0 with a bias, got " + std::to_string(p.span));
  checkSize(p.bias, (2 * p.span - 1) * p.heads, op, "bias");
}

template <class P>
int64_t keyRows(const P& p) {
  return p.k.size / (p.keyValueHeads * p.headSize);
}

template <class P>
const int32_t* keyOffsets(const P& p) {
  return p.keyOffsets.data != nullptr ? p.keyOffsets.data : p.offsets.data;
}

template <class P>
const char* keyOffsetsField(const P& p) {
  return p.keyOffsets.data != nullptr ? "keyOffsets" : "offsets";
}

/// A block for each slot of tileOfSlot (attention_tiles.h) and each head.
Dim tileGrid(int64_t rows, int size, int64_t units, int64_t heads) {
  if (units == 0) return {0};
  return {static_cast<uint32_t>(rows / size + units), static_cast<uint32_t>(heads)};
}

/// call.operator()<T, padded head size>() for the kernels of this type and head size.
template <class T, class Call>
void withHead(int64_t headSize, Call&& call) {
  if (headSize <= 32) {
    call.template operator()<T, 32>();
  } else if (headSize <= 64) {
    call.template operator()<T, 64>();
  } else if (headSize <= 128) {
    call.template operator()<T, 128>();
  } else {
    call.template operator()<T, 256>();
  }
}
template <class Call>
void withTypeAndHead(DType dtype, int64_t headSize, Call&& call) {
  if (dtype == DType::bfloat16) {
    withHead<bfloat16>(headSize, call);
  } else {
    withHead<float>(headSize, call);
  }
}

std::string nameOfKernel(const char* name, int head, DType dtype) {
  return typed((name + std::to_string(head)).c_str(), dtype);
}

}  // namespace

void CudaBackend::attention(const AttentionParams& p) {
  checkAttention(p, "attention");
  const DType dtype = realType("attention", {p.q, p.k, p.v, p.y});
  const AttentionKernelParams params = {p.q.data,
                                        p.k.data,
                                        p.v.data,
                                        p.offsets.data,
                                        keyOffsets(p),
                                        p.bias.data,
                                        p.y.data,
                                        p.logSumExp.data,
                                        offsetsReport(launcher_, "attention", "offsets", p.rows),
                                        offsetsReport(launcher_, "attention", keyOffsetsField(p), keyRows(p)),
                                        p.rows,
                                        keyRows(p),
                                        p.units,
                                        p.heads,
                                        p.keyValueHeads,
                                        p.headSize,
                                        p.span,
                                        p.scale,
                                        p.causal,
                                        packedRows(p.headSize, dtype, {p.q.data, p.k.data, p.v.data, p.y.data})};
  withTypeAndHead(dtype, p.headSize, [&]<class T, int head>() {
    using Shape = Forward<T, head>;
    launcher_.launch(nameOfKernel("attention", head, dtype), tileGrid(p.rows, Shape::kRows, p.units, p.heads),
                     Shape::kThreads, params, Shape::sharedBytes(p.bias.data != nullptr));
  });
}

void CudaBackend::attentionBackward(const AttentionBackwardParams& p) {
  checkAttention(p, "attentionBackward");
  checkSize(p.dy, p.rows * p.heads * p.headSize, "attentionBackward", "dy");
  checkSize(p.dq, p.rows * p.heads * p.headSize, "attentionBackward", "dq");
  checkSize(p.dk, p.k.size, "attentionBackward", "dk");
  checkSize(p.dv, p.k.size, "attentionBackward", "dv");
  checkThat(p.dBias.data == nullptr || p.bias.data != nullptr, "attentionBackward", "a bias where dBias is asked for");
  checkOptionalSize(p.dBias, p.units * (2 * p.span - 1) * p.heads, "attentionBackward", "dBias");
  const DType dtype = realType("attentionBackward", {p.dy, p.q, p.k, p.v, p.y, p.dq, p.dk, p.dv});
  const AttentionBackwardKernelParams params = {
      p.dy.data,
      p.q.data,
      p.k.data,
      p.v.data,
      p.y.data,
      p.logSumExp.data,
      launcher_.scratch<float>(0, p.rows * p.heads),
      p.offsets.data,
      keyOffsets(p),
      p.bias.data,
      p.dq.data,
      p.dk.data,
      p.dv.data,
      p.dBias.data,
      offsetsReport(launcher_, "attentionBackward", "offsets", p.rows),
      offsetsReport(launcher_, "attentionBackward", keyOffsetsField(p), keyRows(p)),
      p.rows,
      keyRows(p),
      p.units,
      p.heads,
      p.keyValueHeads,
      p.headSize,
      p.span,
      p.scale,
      p.causal,
      packedRows(p.headSize, dtype, {p.dy.data, p.q.data, p.k.data, p.v.data, p.dq.data, p.dk.data, p.dv.data})};
  launcher_.launch(typed("attentionDots", dtype), {p.units > 0 ? blocksFor(p.rows * p.heads, kDotThreads / 32) : 0},
                   kDotThreads, params);
  withTypeAndHead(dtype, p.headSize, [&]<class T, int head>() {
    using Shape = Backward<T, head>;
    const bool bias = p.bias.data != nullptr, dBias = p.dBias.data != nullptr;
    const Dim queryGrid = dBias ? Dim{static_cast<uint32_t>(p.units), static_cast<uint32_t>(p.heads)}
                                : tileGrid(p.rows, Shape::kRows, p.units, p.heads);
    launcher_.launch(nameOfKernel("attentionQueries", head, dtype), queryGrid, Shape::kThreads, params,
                     Shape::sharedBytes(bias, dBias));
    launcher_.launch(nameOfKernel("attentionKeys", head, dtype),
                     tileGrid(keyRows(p), Shape::kRows, p.units, p.keyValueHeads), Shape::kThreads, params,
                     Shape::sharedBytes(bias, false));
  });
}

}  // namespace dp_moe
