#pragma once

#include <cstdint>

#include "buffer.h"

// One parameter struct per op. Its fields, in this order, are the op's arguments everywhere: in the binding, in the
// typed signatures (lib/engine/signatures.ts), on the CPU and on CUDA.
//
// Conventions.
// - Matrices are row major and dense. `rows` counts rows of a packed batch; no row is padding.
// - "Optional" operands are null when left out.
// - A *segment* is a run of consecutive rows of one unit: segmentOffsets [segments + 1], unit of segment s = s % units.
//   A dense layer has segments == units; an expert layer has segments == experts * units, expert-major, so that the
//   rows of expert e are segmentOffsets[e * units] .. segmentOffsets[(e + 1) * units]. Segments may be empty.
//   Rows at or past segmentOffsets[segments] do not exist: they are neither read nor written.
// - Bit-identity: an output element is one fixed chain of operations over its own row or segment, counted from the
//   start of that row or segment. Nothing else of the batch, no thread count and no address chooses a code path.
// - Real operands are activations: float32, or bfloat16 on backends that store it. All real operands of one call have
//   one dtype, but y of matrixMultiply, embedding and cast has its own. Arithmetic is in float32 either way.
// - "+=" ops accumulate into their output; all others overwrite it.

namespace dp_moe {

enum class Activation : int32_t { none = 0, relu = 1, gelu = 2, geluTanh = 3, silu = 4, tanh = 5 };

// ---------------------------------------------------------------- matrix products

/// y[r, :] = activation(rowScale[r] * x[xRows[r], :] * W_g + bias[g, :]) (+= when `accumulate`), g the group of row r.
/// x [*, k]; xRows [rows] optional gather; rowScale [rows] optional, multiplies the fp32 accumulator.
/// weight [groups, n, k] when `transposed` (W_g = weight_g', a forward product), else [groups, k, n] (input gradient).
/// groupOffsets [groups * groupStride + 1] optional (one group of all rows): rows of g start at
/// groupOffsets[g * groupStride], so a segment table serves as it is with groupStride = units.
/// preActivation [rows, n] optional: receives the argument of the activation.
struct MatrixMultiplyParams {
  RealInput x;
  Input<int32_t> xRows;
  Input<float> rowScale;
  RealInput weight;
  Input<float> bias;
  Input<int32_t> groupOffsets;
  RealOutput y;
  RealOutput preActivation;
  int64_t rows;
  int64_t k;
  int64_t n;
  int64_t groups;
  int64_t groupStride;
  bool transposed;
  bool accumulate;
  Activation activation;
};

/// gradient[g] [p, d] += sum over the rows r of group g of factor(unit of r) * dy[r, :]' x[xRows[r], :].
/// dy [rows, p]; x [*, d]; xRows [rows] optional; segmentOffsets [segments + 1]; groups = segments / units.
/// factor [units] optional (1): rows of a unit with factor 0 are not read at all (0 * NaN is NaN).
/// tileOf [segments], tiles [*, p, d] optional, from segmentGradientNorms: a segment with tileOf >= 0 is added as
/// factor * tile instead of from its rows; one with kTileOfRows likewise, its tile being made once more, from its rows
/// alone. Sums run over rows in order, in fixed chunks.
struct WeightGradientParams {
  RealInput dy;
  RealInput x;
  Input<int32_t> xRows;
  Input<int32_t> segmentOffsets;
  Input<float> factor;
  Input<int32_t> tileOf;
  Input<float> tiles;
  Output<float> gradient;
  int64_t rows;
  int64_t p;
  int64_t d;
  int64_t segments;
  int64_t units;
};

// ---------------------------------------------------------------- per-unit gradient norms

/// tileOf of a segment whose rows cancel: it has no kept tile, and is added as factor * tile all the same.
constexpr int32_t kTileOfRows = -2;

/// normSquared[unit] += N_s for every segment s, rows as in WeightGradientParams: the squared norm of what
/// weightGradient adds for the segment with factor 1, given tileOf and tiles. With n the rows of s, u = 2^-24,
/// mass = sum_r |dy_r| |x_r| and norm = || dy_s' x_s ||_F of the exact gradient:
/// - Tile form, where n^2 >= 20 h, h = d p / (d + p), a pure function of (n, d, p): the float32 tile dy_s' x_s is made
///   once, squared (N_s is its norm and no bound) and kept in `tiles` at slot tileOf[s], slots in segment order.
/// - Gram form (over row pairs) elsewhere, tileOf[s] = -1: norm^2 <= N_s <= norm^2 (1 + 2.1e-3), where kappa mass^2,
///   kappa the kernel's proven relative error bound, is at most 1e-3 of the value and has been added. Rows cancel
///   there at most 41-fold (mass <= 41 norm: kappa >= 10 u).
/// - Where rows cancel more, tileOf[s] = kTileOfRows: N_s is the norm of the float32 tile, which is not kept.
/// Of a tile, | sqrt(N_s) - norm | <= (n + 4) 2^-23 mass, and so is the distance of the tile itself from the exact
/// gradient; on bfloat16, whose products tensor cores add, (n + 36) 2^-23 mass.
/// tileOf [segments], tiles optional. tiles holds maxTiles tiles; a host-side bound makes overflow an error. A segment
/// with a non-finite value, or a tile beyond float32, makes normSquared[unit] non-finite.
struct SegmentGradientNormsParams {
  RealInput dy;
  RealInput x;
  Input<int32_t> xRows;
  Input<int32_t> segmentOffsets;
  Output<double> normSquared;
  Output<int32_t> tileOf;
  Output<float> tiles;
  int64_t rows;
  int64_t p;
  int64_t d;
  int64_t segments;
  int64_t units;
  int64_t maxTiles;
};

/// normSquared[unit] += || b_s ||^2, b_s the sum over the rows of segment s of dy[r, :] (a bias), one chain in float64.
/// dy [rows, p].
struct SegmentBiasNormsParams {
  RealInput dy;
  Input<int32_t> segmentOffsets;
  Output<double> normSquared;
  int64_t rows;
  int64_t p;
  int64_t segments;
  int64_t units;
};

/// gradient[g, :] += sum over segments s of group g of factor(unit) * b_s, b_s the numbers whose norm segmentBiasNorms
/// takes; summed in float64, rounded once. groups = segments / units; factor optional.
struct BiasGradientParams {
  RealInput dy;
  Input<int32_t> segmentOffsets;
  Input<float> factor;
  Output<float> gradient;
  int64_t rows;
  int64_t p;
  int64_t segments;
  int64_t units;
};

/// normSquared[unit] += squared norm of the unit's embedding gradient: rows with the same id are summed first, in
/// float64 (e_i below).
/// dy [rows, d], ids [rows], segmentOffsets [units + 1].
struct EmbeddingGradientNormsParams {
  RealInput dy;
  Input<int32_t> ids;
  Input<int32_t> segmentOffsets;
  Output<double> normSquared;
  int64_t rows;
  int64_t d;
  int64_t units;
};

/// gradient[i, :] += sum over units of factor(unit) * e_i, e_i the sum over the unit's rows r with ids[r] = i of
/// dy[r, :]: the numbers whose norm embeddingGradientNorms takes; summed in float64, rounded once. Rows with factor 0
/// are not read. gradient [vocabulary, d].
struct EmbeddingGradientParams {
  RealInput dy;
  Input<int32_t> ids;
  Input<int32_t> segmentOffsets;
  Input<float> factor;
  Output<float> gradient;
  int64_t rows;
  int64_t d;
  int64_t units;
  int64_t vocabulary;
};

/// The cross term of a table used as embedding and as head: normSquared[unit] += 2 * sum over the unit's embedding rows
/// s and head rows t of dLogits[t, ids[s]] * <dEmbedding[s, :], x[t, :]>, raised by the proven bound of its error: of
/// the dot products, and of the head's tile, which is off by a rounding for each row and is what weightGradient adds.
/// The whole, with the terms of embeddingGradientNorms and segmentGradientNorms, is never short of the norm of what
/// embeddingGradient and weightGradient add. dEmbedding [embeddingRows, d], ids [embeddingRows], embeddingOffsets
/// [units + 1]; dLogits [headRows, vocabulary], x [headRows, d], headOffsets [units + 1].
struct TiedEmbeddingNormsParams {
  RealInput dEmbedding;
  Input<int32_t> ids;
  Input<int32_t> embeddingOffsets;
  RealInput dLogits;
  RealInput x;
  Input<int32_t> headOffsets;
  Output<double> normSquared;
  int64_t d;
  int64_t vocabulary;
  int64_t units;
};

/// factor[i, u] of clipping group i from normSquared[i, u]. mode 0: min(1, bounds[i] (1 - 2^-10) / norm); mode 1:
/// AUTO-S (arXiv 2206.07136), bounds[i] (1 - 2^-10) / (norm + stability); rounded down to float32. bounds finite and at
/// least 0, stability above 0. A unit whose norm is not finite in any group has factor 0 in all. statistics [groups, 3]
/// += {units clipped, units non-finite, sum of finite norms} (private values). normSquared, factor [groups, units];
/// bounds [groups].
struct ClipFactorsParams {
  Input<double> normSquared;
  Input<float> bounds;
  Output<float> factor;
  Output<double> statistics;
  int64_t groups;
  int64_t units;
  int32_t mode;
  float stability;
};

// ---------------------------------------------------------------- embeddings, pooling, row movement

/// y[r, :] = scale * table[ids[r], :]; an id outside [0, vocabulary) is an error.
struct EmbeddingParams {
  Input<float> table;
  Input<int32_t> ids;
  RealOutput y;
  int64_t rows;
  int64_t d;
  int64_t vocabulary;
  float scale;
};

/// y[u, :] = sum over rows r of unit u of weight(r) * x[r, :]; weights [rows] optional: then 1 / (rows of the unit), a
/// mean. An empty unit gives zeros.
struct PoolParams {
  RealInput x;
  Input<float> weights;
  Input<int32_t> segmentOffsets;
  RealOutput y;
  int64_t rows;
  int64_t d;
  int64_t units;
};

/// dx[r, :] = weight(r) * dy[u, :].
struct PoolBackwardParams {
  RealInput dy;
  Input<float> weights;
  Input<int32_t> segmentOffsets;
  RealOutput dx;
  int64_t rows;
  int64_t d;
  int64_t units;
};

/// y[i, :] = scale[i] * x[index[i], :] for i < count, count = countOffsets[last] (null: rows); scale optional.
struct GatherRowsParams {
  RealInput x;
  Input<int32_t> index;
  Input<float> scale;
  Input<int32_t> countOffsets;
  RealOutput y;
  int64_t rows;
  int64_t d;
};

/// y[r, :] (+=) sum over j < perRow of weight[r, j] * x[slot[r, j], :], terms in order of j; slot < 0 adds nothing.
/// weight [rows, perRow] optional (1). This is the MoE combine, and the gradient of a gather.
struct CombineRowsParams {
  RealInput x;
  Input<int32_t> slot;
  Input<float> weight;
  RealOutput y;
  int64_t rows;
  int64_t d;
  int64_t perRow;
  bool accumulate;
};

/// y = the rows of a and b joined per unit: unit u holds a's rows, then b's. offsets of y are aOffsets + bOffsets.
struct ConcatenateRowsParams {
  RealInput a;
  Input<int32_t> aOffsets;
  RealInput b;
  Input<int32_t> bOffsets;
  RealOutput y;
  int64_t d;
  int64_t units;
};

/// As ConcatenateRowsParams for one int32 per row (ids of an embedding used at two sites).
struct ConcatenateIndicesParams {
  Input<int32_t> a;
  Input<int32_t> aOffsets;
  Input<int32_t> b;
  Input<int32_t> bOffsets;
  Output<int32_t> y;
  int64_t units;
};

// ---------------------------------------------------------------- elementwise

/// y = x, rounded to the dtype of y.
struct CastParams {
  RealInput x;
  RealOutput y;
  int64_t size;
};

/// y = alpha * a + beta * b, elementwise; b optional. y may be a or b.
struct AddParams {
  RealInput a;
  RealInput b;
  RealOutput y;
  int64_t size;
  float alpha;
  float beta;
};

/// y = a * b, elementwise.
struct MultiplyParams {
  RealInput a;
  RealInput b;
  RealOutput y;
  int64_t size;
};

/// y = min(max(x, low), high), elementwise; NaN stays. y may be x.
struct ClampParams {
  RealInput x;
  RealOutput y;
  int64_t size;
  float low;
  float high;
};

/// dx = dy where low <= x <= high, else 0; NaN where x is NaN.
struct ClampBackwardParams {
  RealInput dy;
  RealInput x;
  RealOutput dx;
  int64_t size;
  float low;
  float high;
};

/// y = activation(x).
struct ActivationParams {
  RealInput x;
  RealOutput y;
  int64_t size;
  Activation activation;
};

/// dx[r, :] = rowScale[r] * dy[r, :] * activation'(x[r, :]); x is the activation's argument, rowScale optional.
/// Rows at or past countOffsets[last] are left alone (null: all rows).
struct ActivationBackwardParams {
  RealInput dy;
  RealInput x;
  Input<float> rowScale;
  Input<int32_t> countOffsets;
  RealOutput dx;
  int64_t rows;
  int64_t d;
  Activation activation;
};

/// y = activation(gate) * up (SwiGLU with silu), rows as in ActivationBackwardParams. gate, up, y [rows, d].
struct GatedActivationParams {
  RealInput gate;
  RealInput up;
  Input<int32_t> countOffsets;
  RealOutput y;
  int64_t rows;
  int64_t d;
  Activation activation;
};

/// dGate = rowScale * dy * up * activation'(gate); dUp = rowScale * dy * activation(gate); rowScale [rows] optional.
struct GatedActivationBackwardParams {
  RealInput dy;
  RealInput gate;
  RealInput up;
  Input<float> rowScale;
  Input<int32_t> countOffsets;
  RealOutput dGate;
  RealOutput dUp;
  int64_t rows;
  int64_t d;
  Activation activation;
};

/// y[r] = <a[r, :], b[aligned row, :]>: b row = bRows[r] (null: r). Rows past countOffsets[last] are left alone.
struct RowDotParams {
  RealInput a;
  RealInput b;
  Input<int32_t> bRows;
  Input<int32_t> countOffsets;
  Output<float> y;
  int64_t rows;
  int64_t d;
};

/// y = x * mask / (1 - rate); the mask is a pure function of (key, step, site, unit id, position in the unit, column),
/// so it does not depend on the rest of the batch. unitIds [units] are data set positions. The backward pass is the
/// same op on dy. key [8] 32-bit words.
struct DropoutParams {
  RealInput x;
  Input<int32_t> segmentOffsets;
  Input<int32_t> unitIds;
  Input<int32_t> key;
  RealOutput y;
  int64_t rows;
  int64_t d;
  int64_t units;
  int64_t step;
  int64_t site;
  float rate;
};

/// y = x * U(1 - epsilon, 1 + epsilon), keyed as dropout (router jitter).
struct JitterParams {
  RealInput x;
  Input<int32_t> segmentOffsets;
  Input<int32_t> unitIds;
  Input<int32_t> key;
  RealOutput y;
  int64_t rows;
  int64_t d;
  int64_t units;
  int64_t step;
  int64_t site;
  float epsilon;
};

// ---------------------------------------------------------------- normalisation

/// y = (x - mean) * rstd * weight + bias over the last dimension; weight, bias [d] optional (1, 0).
/// mean, rstd [rows] are kept for the backward pass.
struct LayerNormParams {
  RealInput x;
  Input<float> weight;
  Input<float> bias;
  RealOutput y;
  Output<float> mean;
  Output<float> rstd;
  int64_t rows;
  int64_t d;
  float epsilon;
};

/// dx; and per unit dWeight [units, d], dBias [units, d] (optional, overwritten): sums over the unit's rows in order.
struct LayerNormBackwardParams {
  RealInput dy;
  RealInput x;
  Input<float> weight;
  Input<float> mean;
  Input<float> rstd;
  Input<int32_t> segmentOffsets;
  RealOutput dx;
  Output<float> dWeight;
  Output<float> dBias;
  int64_t rows;
  int64_t d;
  int64_t units;
};

/// y = x * rstd * weight, rstd = 1 / sqrt(mean(x^2) + epsilon).
struct RmsNormParams {
  RealInput x;
  Input<float> weight;
  RealOutput y;
  Output<float> rstd;
  int64_t rows;
  int64_t d;
  float epsilon;
};

struct RmsNormBackwardParams {
  RealInput dy;
  RealInput x;
  Input<float> weight;
  Input<float> rstd;
  Input<int32_t> segmentOffsets;
  RealOutput dx;
  Output<float> dWeight;
  int64_t rows;
  int64_t d;
  int64_t units;
};

// ---------------------------------------------------------------- attention

/// Rotary position embedding (arXiv 2104.09864), the two halves of a head as pairs ("rotate half"): with the angle
/// a = positions[r] * inverseFrequency[c] rounded to float32, y[r, h, c] = x[r, h, c] cos a - x[r, h, half + c] sin a
/// and y[r, h, half + c] = x[r, h, half + c] cos a + x[r, h, c] sin a. x, y [rows, heads * headSize], headSize even;
/// positions [rows]; inverseFrequency [headSize / 2]. inverse: by -a, which is the backward pass. y may be x.
struct RotaryEmbeddingParams {
  RealInput x;
  Input<int32_t> positions;
  Input<float> inverseFrequency;
  RealOutput y;
  int64_t rows;
  int64_t heads;
  int64_t headSize;
  bool inverse;
};

/// Softmax attention within each unit, never across units: the scores are scale <q, k> + bias.
/// Queries of unit u are rows offsets[u] .. offsets[u + 1] of q [rows, heads * headSize] and y. Its keys are rows
/// keyOffsets[u] .. keyOffsets[u + 1] of k, v [*, keyValueHeads * headSize] (cross attention, a cache of earlier keys);
/// without keyOffsets they are those of offsets. heads % keyValueHeads == 0.
/// Positions are counted from the end: query i of n is at key m - n + i of m. causal: it sees keys up to that one.
/// bias [2 * span - 1, heads] optional: row clamp(key - query position, -(span - 1), span - 1) + span - 1 is added.
/// A query that sees no key gives zeros and a logSumExp of -infinity. logSumExp [rows, heads] is kept for the backward
/// pass.
struct AttentionParams {
  RealInput q;
  RealInput k;
  RealInput v;
  Input<int32_t> offsets;
  Input<int32_t> keyOffsets;
  Input<float> bias;
  RealOutput y;
  Output<float> logSumExp;
  int64_t rows;
  int64_t units;
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
  int64_t span;
  float scale;
  bool causal;
};

/// dBias [units, 2 * span - 1, heads] optional, overwritten: each unit's own gradient of the bias.
struct AttentionBackwardParams {
  RealInput dy;
  RealInput q;
  RealInput k;
  RealInput v;
  RealInput y;
  Input<float> logSumExp;
  Input<int32_t> offsets;
  Input<int32_t> keyOffsets;
  Input<float> bias;
  RealOutput dq;
  RealOutput dk;
  RealOutput dv;
  Output<float> dBias;
  int64_t rows;
  int64_t units;
  int64_t heads;
  int64_t keyValueHeads;
  int64_t headSize;
  int64_t span;
  float scale;
  bool causal;
};

// ---------------------------------------------------------------- routing

/// Router: probabilities = softmax(logits) [rows, experts]; the k largest per row, ties to the lowest index, in falling
/// order: expert [rows, k]; gate [rows, k] = their probabilities, divided by their sum when `normalize`.
struct TopKRoutingParams {
  Input<float> logits;
  Output<float> probabilities;
  Output<int32_t> expert;
  Output<float> gate;
  int64_t rows;
  int64_t experts;
  int64_t k;
  bool normalize;
};

/// dLogits from dGate [rows, k] and dProbabilities [rows, experts] (either may be null), through normalisation and
/// softmax.
struct TopKRoutingBackwardParams {
  Input<float> dGate;
  Input<float> dProbabilities;
  Input<float> probabilities;
  Input<int32_t> expert;
  Input<float> gate;
  Output<float> dLogits;
  int64_t rows;
  int64_t experts;
  int64_t k;
  bool normalize;
};

/// Stable counting sort of the rows * k (row, choice) pairs by (expert, unit), pairs in row order.
/// offsets [units + 1] are the units' rows. segmentOffsets [experts * units + 1], rowOfSlot [rows * k],
/// slotOf [rows, k] (-1: dropped). capacity > 0: at most that many rows per (unit, expert), in row order; 0: dropless.
struct RoutingPlanParams {
  Input<int32_t> expert;
  Input<int32_t> offsets;
  Output<int32_t> segmentOffsets;
  Output<int32_t> rowOfSlot;
  Output<int32_t> slotOf;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
  int64_t capacity;
};

/// slots[slotOf[r, j]] = values[r, j] where slotOf >= 0 (gate weights in slot order).
struct ScatterToSlotsParams {
  Input<float> values;
  Input<int32_t> slotOf;
  Output<float> slots;
  int64_t count;
};

/// loads[u, e] = fraction of the choices of unit u's rows that chose expert e; 0 for an empty unit. expert [rows, k],
/// loads [units, experts].
struct UnitLoadsParams {
  Input<int32_t> expert;
  Input<int32_t> offsets;
  Output<float> loads;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
};

/// Per-unit balance and z losses. loss[u] = balance * E * sum_e (f_e(u) / k) P_e(u) + z * mean_r logsumexp(logits_r)^2,
/// f_e the fraction of the unit's rows times choices that chose e (before capacity; constant for the gradient), P_e the
/// mean probability, both over the unit's own rows; 0 for an empty unit. loss [units]. loads [experts] += choices per
/// expert (private telemetry), optional.
struct RouterLossParams {
  Input<float> logits;
  Input<float> probabilities;
  Input<int32_t> expert;
  Input<int32_t> offsets;
  Output<float> loss;
  Output<double> loads;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
  float balance;
  float z;
};

/// dProbabilities [rows, experts] and dLogits [rows, experts] (both overwritten) from dLoss [units].
struct RouterLossBackwardParams {
  Input<float> dLoss;
  Input<float> logits;
  Input<int32_t> expert;
  Input<int32_t> offsets;
  Output<float> dProbabilities;
  Output<float> dLogits;
  int64_t rows;
  int64_t units;
  int64_t experts;
  int64_t k;
  float balance;
  float z;
};

// ---------------------------------------------------------------- losses

/// loss[r] = -log softmax(logits[r, :])[target[r]]; a target of -1 gives 0. logSumExp [rows] is kept.
struct CrossEntropyParams {
  RealInput logits;
  Input<int32_t> targets;
  Output<float> loss;
  Output<float> logSumExp;
  int64_t rows;
  int64_t classes;
};

/// dLogits[r, :] = dLoss[r] * (softmax - one hot); zeros where the target is -1. dLogits may be logits.
struct CrossEntropyBackwardParams {
  Input<float> dLoss;
  RealInput logits;
  Input<int32_t> targets;
  Input<float> logSumExp;
  RealOutput dLogits;
  int64_t rows;
  int64_t classes;
};

/// y = softmax over the last dimension.
struct SoftmaxParams {
  RealInput x;
  RealOutput y;
  int64_t rows;
  int64_t d;
};

// ---------------------------------------------------------------- noise and updates

/// The private update in one pass, per element i of a parameter of `size` elements:
///   g = (gradient[i] + noiseDeviation * z_i) / divisor, z_i standard normal from ChaCha20(key; step, stream, i),
/// then SGD with momentum. key [8] words; noiseDeviation 0 draws nothing. Weight decay is decoupled (w -= lr * decay *
/// w). velocity optional when momentum is 0. gradient is zeroed afterwards. average [size] optional: an exponential
/// moving average of the weights with weight `averageRate` on the new value.
struct NoisySgdParams {
  Output<float> weight;
  Output<float> gradient;
  Output<float> velocity;
  Output<float> average;
  Input<int32_t> key;
  int64_t size;
  int64_t step;
  int64_t stream;
  float noiseDeviation;
  float divisor;
  float learningRate;
  float momentum;
  float weightDecay;
  float averageRate;
  bool nesterov;
};

/// As NoisySgdParams with Adam moments; correction1 = 1 - beta1^t, correction2 = 1 - beta2^t.
/// DP-AdamBC (arXiv 2312.14334): the denominator is sqrt(max(secondMoment / correction2 - noiseVariance,
/// varianceFloor)) with noiseVariance = (sigma C / divisor)^2; noiseVariance 0 and varianceFloor 0 give plain Adam:
/// sqrt(v^) + epsilon. coupledDecay: weight decay added to the gradient (Adam) instead of decoupled (AdamW).
struct NoisyAdamParams {
  Output<float> weight;
  Output<float> gradient;
  Output<float> firstMoment;
  Output<float> secondMoment;
  Output<float> average;
  Input<int32_t> key;
  int64_t size;
  int64_t step;
  int64_t stream;
  float noiseDeviation;
  float divisor;
  float learningRate;
  float beta1;
  float beta2;
  float correction1;
  float correction2;
  float epsilon;
  float weightDecay;
  float noiseVariance;
  float varianceFloor;
  float averageRate;
  bool coupledDecay;
};

/// y[i] = z_i, the normals that NoisySgdParams would add (deviation 1), from element `first` on.
struct GaussianParams {
  Input<int32_t> key;
  Output<float> y;
  int64_t first;
  int64_t size;
  int64_t step;
  int64_t stream;
};

}  // namespace dp_moe
