#include <algorithm>
#include <cmath>

#include "batches.h"

namespace dp_moe::conformance {

namespace {

std::vector<double> softmaxOf(const float* x, int64_t n) {
  const double top = *std::max_element(x, x + n);
  std::vector<double> p;
  double sum = 0;
  for (int64_t i = 0; i < n; ++i) p.push_back(std::exp(x[i] - top));
  for (const double value : p) sum += value;
  for (double& value : p) value /= sum;
  return p;
}

struct Choice {
  int64_t experts;
  int64_t k;
};
const std::vector<Choice> kChoices = {{1, 1}, {2, 2}, {8, 1}, {8, 2}, {9, 3}, {64, 8}, {130, 4}};

}  // namespace

CONFORMANCE_TEST(topKRouting) {
  for (const auto [experts, k] : kChoices) {
    for (const bool normalize : {false, true}) {
      for (const int64_t rows : {0, 1, 50}) {
        Random random(static_cast<uint64_t>(experts + k));
        const auto logits = random.normals(rows * experts, 2), dGate = random.normals(rows * k),
                   dProbabilities = random.normals(rows * experts);
        const auto logitsT = context.tensor(logits), dGateT = context.tensor(dGate),
                   dProbabilitiesT = context.tensor(dProbabilities);
        const auto probabilities = context.result<float>(rows * experts), gate = context.result<float>(rows * k),
                   dLogits = context.result<float>(rows * experts);
        const auto expert = context.result<int32_t>(rows * k);
        auto& backend = context.backend();
        backend.topKRouting({logitsT, probabilities, expert, gate, rows, experts, k, normalize});
        const auto p = probabilities.values();
        const auto chosen = expert.values();
        std::vector<double> wantP, wantGate;
        for (int64_t r = 0; r < rows; ++r) {
          const auto row = softmaxOf(logits.data() + r * experts, experts);
          wantP.insert(wantP.end(), row.begin(), row.end());
          std::vector<int32_t> order(static_cast<size_t>(experts));
          std::iota(order.begin(), order.end(), 0);
          std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
            return p[static_cast<size_t>(r * experts + a)] > p[static_cast<size_t>(r * experts + b)];
          });
          double sum = 0;
          for (int64_t j = 0; j < k; ++j) sum += row[static_cast<size_t>(order[static_cast<size_t>(j)])];
          for (int64_t j = 0; j < k; ++j) {
            expect(chosen[static_cast<size_t>(r * k + j)] == order[static_cast<size_t>(j)], "the experts chosen");
            wantGate.push_back(row[static_cast<size_t>(order[static_cast<size_t>(j)])] / (normalize ? sum : 1));
          }
        }
        const auto name = label(experts, " experts, k ", k, normalize ? ", normalized" : "");
        expectNear(p, wantP, 2e-6, 0, "probabilities, " + name);
        expectNear(gate.values(), wantGate, 2e-6, 0, "gate, " + name);
        context.sameInEveryRun(label("topKRouting ", name, rows), gate.values());

        // The gradient, with either of the two upstream gradients left out.
        for (const int part : {1, 2, 3}) {
          backend.topKRoutingBackward({part & 1 ? Input<float>(dGateT) : Input<float>{},
                                       part & 2 ? Input<float>(dProbabilitiesT) : Input<float>{}, probabilities, expert,
                                       gate, dLogits, rows, experts, k, normalize});
          std::vector<double> want;
          for (int64_t r = 0; r < rows; ++r) {
            const double* row = wantP.data() + r * experts;
            std::vector<double> dp(static_cast<size_t>(experts));
            for (int64_t e = 0; e < experts && (part & 2); ++e) {
              dp[static_cast<size_t>(e)] = dProbabilities[static_cast<size_t>(r * experts + e)];
            }
            double sum = 0, product = 0;
            for (int64_t j = 0; j < k; ++j) {
              sum += row[chosen[static_cast<size_t>(r * k + j)]];
              product += dGate[static_cast<size_t>(r * k + j)] * row[chosen[static_cast<size_t>(r * k + j)]];
            }
            for (int64_t j = 0; j < k && (part & 1); ++j) {
              const double g = dGate[static_cast<size_t>(r * k + j)];
              dp[static_cast<size_t>(chosen[static_cast<size_t>(r * k + j)])] +=
                  normalize ? (g - product / sum) / sum : g;
            }
            double mean = 0;
            for (int64_t e = 0; e < experts; ++e) mean += dp[static_cast<size_t>(e)] * row[e];
            for (int64_t e = 0; e < experts; ++e) want.push_back(row[e] * (dp[static_cast<size_t>(e)] - mean));
          }
          expectNear(dLogits.values(), want, 1e-4, 2e-6, "dLogits, " + name);
        }
      }
    }
  }
}

CONFORMANCE_TEST(routingTiesAndBadRows) {
  // Ties go to the lowest index; a row of NaN still gives different experts in range, and does not touch the next row.
  std::vector<float> logits(3 * 20, 0.0f);
  logits[5] = logits[17] = 1.0f;
  for (int i = 20; i < 40; ++i) logits[static_cast<size_t>(i)] = NAN;
  logits[40 + 3] = 1e30f;
  const auto logitsT = context.tensor(logits);
  const auto probabilities = context.result<float>(60), gate = context.result<float>(9);
  const auto expert = context.result<int32_t>(9);
  context.backend().topKRouting({logitsT, probabilities, expert, gate, 3, 20, 3, true});
  expectSame(expert.values(), {5, 17, 0, 0, 1, 2, 3, 0, 1}, "the experts");
  const auto g = gate.values();
  for (int j = 0; j < 3; ++j) {
    expect(std::isfinite(g[static_cast<size_t>(j)]) && std::isnan(g[static_cast<size_t>(3 + j)]), "the gates");
  }
  expect(g[6] == 1 && g[7] == 0 && g[8] == 0, "the gates of an extreme row");
}

CONFORMANCE_TEST(routingPlan) {
  for (const auto& lengths : unitLengths()) {
    for (const auto [experts, k] : kChoices) {
      for (const int64_t capacity : {0, 1, 2}) {
        Random random(static_cast<uint64_t>(experts));
        const auto offsets = offsetsOf(lengths);
        const int64_t rows = offsets.back();
        const auto units = static_cast<int64_t>(lengths.size());
        std::vector<int32_t> expert;
        for (int64_t r = 0; r < rows; ++r) {
          const int32_t start = random.below(static_cast<int32_t>(experts));
          for (int64_t j = 0; j < k; ++j) expert.push_back(static_cast<int32_t>((start + j) % experts));
        }
        const auto expertT = context.tensor(expert), offsetsT = context.tensor(offsets);
        const auto segments = context.result<int32_t>(experts * units + 1),
                   rowOfSlot = context.result<int32_t>(rows * k), slotOf = context.result<int32_t>(rows * k);
        context.backend().routingPlan(
            {expertT, offsetsT, segments, rowOfSlot, slotOf, rows, units, experts, k, capacity});
        std::vector<int32_t> wantSegments = {0}, wantRows, wantSlots(static_cast<size_t>(rows * k), -1);
        for (int32_t e = 0; e < experts; ++e) {
          for (int64_t u = 0; u < units; ++u) {
            int64_t count = 0;
            for (int64_t i = offsets[static_cast<size_t>(u)] * k; i < offsets[static_cast<size_t>(u) + 1] * k; ++i) {
              if (expert[static_cast<size_t>(i)] != e || (capacity > 0 && count == capacity)) continue;
              ++count;
              wantSlots[static_cast<size_t>(i)] = static_cast<int32_t>(wantRows.size());
              wantRows.push_back(static_cast<int32_t>(i / k));
            }
            wantSegments.push_back(static_cast<int32_t>(wantRows.size()));
          }
        }
        wantRows.resize(static_cast<size_t>(rows * k), -1);
        expectSame(segments.values(), wantSegments, "segmentOffsets");
        expectSame(rowOfSlot.values(), wantRows, "rowOfSlot");
        expectSame(slotOf.values(), wantSlots, "slotOf");

        const auto values = random.normals(rows * k);
        const auto valuesT = context.tensor(values), slots = context.result<float>(rows * k);
        context.backend().scatterToSlots({valuesT, slotOf, slots, rows * k});
        std::vector<float> wantScattered(static_cast<size_t>(rows * k), -777);
        for (size_t i = 0; i < wantSlots.size(); ++i) {
          if (wantSlots[i] >= 0) wantScattered[static_cast<size_t>(wantSlots[i])] = values[i];
        }
        expectSame(slots.values(), wantScattered, "scatterToSlots");
      }
    }
  }
}

CONFORMANCE_TEST(routingPlanOfManyPairs) {
  // More segments than a tile of any scan holds, long units beside empty ones, and rows that belong to no unit.
  for (const int64_t capacity : {0, 3}) {
    Random random(3);
    const int64_t experts = 24, k = 2;
    std::vector<int32_t> lengths(context.sized(400, 200), 3);
    for (size_t u = 0; u < lengths.size(); u += 7) lengths[u] = 0;
    lengths[5] = 700;
    const auto offsets = offsetsOf(lengths);
    const auto units = static_cast<int64_t>(lengths.size());
    const int64_t rows = offsets.back() + 9;
    std::vector<int32_t> expert;
    for (int64_t i = 0; i < rows * k; ++i)
      expert.push_back(random.below(i % 3 == 0 ? 2 : static_cast<int32_t>(experts)));
    const auto expertT = context.tensor(expert), offsetsT = context.tensor(offsets);
    const auto segments = context.result<int32_t>(experts * units + 1), rowOfSlot = context.result<int32_t>(rows * k),
               slotOf = context.result<int32_t>(rows * k);
    context.backend().routingPlan({expertT, offsetsT, segments, rowOfSlot, slotOf, rows, units, experts, k, capacity});
    std::vector<std::vector<int32_t>> pairs(static_cast<size_t>(experts * units));
    for (int64_t u = 0; u < units; ++u) {
      for (int64_t i = offsets[static_cast<size_t>(u)] * k; i < offsets[static_cast<size_t>(u) + 1] * k; ++i) {
        auto& segment = pairs[static_cast<size_t>(expert[static_cast<size_t>(i)] * units + u)];
        if (capacity == 0 || static_cast<int64_t>(segment.size()) < capacity)
          segment.push_back(static_cast<int32_t>(i));
      }
    }
    std::vector<int32_t> wantSegments = {0}, wantRows, wantSlots(static_cast<size_t>(rows * k), -1);
    for (const auto& segment : pairs) {
      for (const int32_t pair : segment) {
        wantSlots[static_cast<size_t>(pair)] = static_cast<int32_t>(wantRows.size());
        wantRows.push_back(pair / static_cast<int32_t>(k));
      }
      wantSegments.push_back(static_cast<int32_t>(wantRows.size()));
    }
    wantRows.resize(static_cast<size_t>(rows * k), -1);
    expectSame(segments.values(), wantSegments, "segmentOffsets");
    expectSame(rowOfSlot.values(), wantRows, "rowOfSlot");
    expectSame(slotOf.values(), wantSlots, "slotOf");
  }
}

CONFORMANCE_TEST(routerLoss) {
  for (const auto& lengths : unitLengths()) {
    for (const auto [experts, k] : kChoices) {
      Random random(static_cast<uint64_t>(experts));
      const auto offsets = offsetsOf(lengths);
      const int64_t rows = offsets.back();
      const auto units = static_cast<int64_t>(lengths.size());
      const auto logits = random.normals(rows * experts, 2), dLoss = random.normals(units);
      const auto logitsT = context.tensor(logits), dLossT = context.tensor(dLoss);
      const auto offsetsT = context.tensor(offsets);
      const auto probabilities = context.result<float>(rows * experts), gate = context.result<float>(rows * k),
                 loss = context.result<float>(units), dProbabilities = context.result<float>(rows * experts),
                 dLogits = context.result<float>(rows * experts);
      const auto expert = context.result<int32_t>(rows * k);
      const auto loads = context.tensor(std::vector<double>(static_cast<size_t>(experts), 10));
      auto& backend = context.backend();
      backend.topKRouting({logitsT, probabilities, expert, gate, rows, experts, k, false});
      for (const float z : {0.0f, 0.01f}) {
        for (const float balance : {0.0f, 0.3f}) {
          const auto noLoads = Output<double>{};
          backend.routerLoss(
              {logitsT, probabilities, expert, offsetsT, loss, noLoads, rows, units, experts, k, balance, z});
          backend.routerLossBackward(
              {dLossT, logitsT, expert, offsetsT, dProbabilities, dLogits, rows, units, experts, k, balance, z});
          std::vector<double> wantLoss, wantDProbabilities, wantDLogits;
          const auto chosen = expert.values();
          for (size_t u = 0; u < lengths.size(); ++u) {
            const double n = lengths[u];
            std::vector<double> fraction(static_cast<size_t>(experts)), mean(static_cast<size_t>(experts));
            double squares = 0;
            for (int64_t r = offsets[u]; r < offsets[u + 1]; ++r) {
              const float* x = logits.data() + r * experts;
              const auto p = softmaxOf(x, experts);
              for (int64_t j = 0; j < k; ++j)
                fraction[static_cast<size_t>(chosen[static_cast<size_t>(r * k + j)])] += 1 / n;
              const double log = x[0] - std::log(p[0]);
              squares += log * log / n;
              for (size_t e = 0; e < p.size(); ++e) {
                mean[e] += p[e] / n;
                wantDLogits.push_back(static_cast<double>(dLoss[u]) * static_cast<double>(z) * 2 * log * p[e] / n);
              }
            }
            double sum = 0;
            for (size_t e = 0; e < mean.size(); ++e) sum += fraction[e] / static_cast<double>(k) * mean[e];
            wantLoss.push_back(n == 0 ? 0
                                      : static_cast<double>(balance) * static_cast<double>(experts) * sum +
                                            static_cast<double>(z) * squares);
            for (int32_t r = 0; r < lengths[u]; ++r) {
              for (const double f : fraction) {
                wantDProbabilities.push_back(static_cast<double>(dLoss[u]) * static_cast<double>(balance) *
                                             static_cast<double>(experts) * f / static_cast<double>(k) / n);
              }
            }
          }
          const auto name = label(experts, " experts, k ", k, ", balance ", balance, ", z ", z);
          expectNear(loss.values(), wantLoss, 1e-5, 1e-7, "loss, " + name);
          expectNear(dProbabilities.values(), wantDProbabilities, 1e-5, 1e-9, "dProbabilities, " + name);
          expectNear(dLogits.values(), wantDLogits, 1e-5, 1e-8, "dLogits, " + name);
          context.sameInEveryRun(label("routerLoss ", name, describe(lengths, 0)), loss.values());
        }
      }
      backend.routerLoss({logitsT, probabilities, expert, offsetsT, loss, loads, rows, units, experts, k, 1, 0});
      std::vector<double> wantLoads(static_cast<size_t>(experts), 10);
      for (const int32_t e : expert.values()) wantLoads[static_cast<size_t>(e)] += 1;
      expectNear(loads.values(), wantLoads, 0, 0, "loads");
    }
  }
}

CONFORMANCE_TEST(routerLossOfAUnitIsItsOwn) {
  Random random(2);
  const int64_t experts = 8;
  const auto own = random.normals(11 * experts, 2);
  std::vector<float> first;
  for (const int32_t before : {0, 1, 40}) {
    const auto logits =
        context.tensor(join<float>({std::vector<float>(static_cast<size_t>(before * experts), NAN), own}));
    const int64_t rows = before + 11;
    const auto offsets = context.tensor(offsetsOf({before, 11}));
    const auto probabilities = context.result<float>(rows * experts), gate = context.result<float>(rows * 2),
               loss = context.result<float>(2), dProbabilities = context.result<float>(rows * experts),
               dLogits = context.result<float>(rows * experts), dLoss = context.tensor(std::vector<float>{NAN, 1});
    const auto expert = context.result<int32_t>(rows * 2);
    auto& backend = context.backend();
    backend.topKRouting({logits, probabilities, expert, gate, rows, experts, 2, true});
    backend.routerLoss({logits, probabilities, expert, offsets, loss, {}, rows, 2, experts, 2, 0.1f, 0.1f});
    backend.routerLossBackward(
        {dLoss, logits, expert, offsets, dProbabilities, dLogits, rows, 2, experts, 2, 0.1f, 0.1f});
    std::vector<float> mine = {loss.values()[1]};
    for (const auto& values : {probabilities.values(), dProbabilities.values(), dLogits.values()}) {
      mine.insert(mine.end(), values.begin() + before * experts, values.end());
    }
    for (const float value : mine) expect(std::isfinite(value), "a neighbour's NaN came over");
    if (first.empty()) first = mine;
    expectSame(mine, first, "a unit's routing among others");
  }
}

CONFORMANCE_TEST(unitLoads) {
  for (const auto [experts, k] : kChoices) {
    for (const auto& lengths : unitLengths()) {
      Random random(static_cast<uint64_t>(experts));
      const auto offsets = offsetsOf(lengths);
      const int64_t rows = offsets.back(), units = static_cast<int64_t>(lengths.size());
      std::vector<int32_t> expert;
      for (int64_t i = 0; i < rows * k; ++i) expert.push_back(random.below(static_cast<int32_t>(experts)));
      std::vector<double> want(static_cast<size_t>(units * experts));
      for (size_t u = 0; u < lengths.size(); ++u) {
        for (int64_t i = offsets[u] * k; i < offsets[u + 1] * k; ++i) {
          const auto at = u * static_cast<size_t>(experts) + static_cast<size_t>(expert[static_cast<size_t>(i)]);
          want[at] += 1.0 / static_cast<double>(lengths[u] * k);
        }
      }
      const auto expertT = context.tensor(expert), offsetsT = context.tensor(offsets);
      const auto loads = context.result<float>(units * experts);
      context.backend().unitLoads({expertT, offsetsT, loads, rows, units, experts, k});
      const auto name = label(describe(lengths, experts), ", k ", k);
      expectNear(loads.values(), want, 1e-6, 0, "loads, " + name);
      context.sameInEveryRun("loads, " + name, loads.values());
    }
  }
}

CONFORMANCE_TEST(routingRefusesWrongOffsets) {
  auto& backend = context.backend();
  const auto four = context.result<float>(4), one = context.result<float>(1);
  const auto choices = context.tensor(std::vector<int32_t>{0, 1});
  const auto out2 = context.result<int32_t>(2), out3 = context.result<int32_t>(3);
  for (const auto& wrong : {std::vector<int32_t>{0, 3}, {1, 0}, {-1, 2}}) {
    const auto offsets = context.tensor(wrong);
    const auto refused = [&](const std::function<void()>& call, const char* op) {
      expectError("INVALID_ARGUMENT", call, op);
    };
    refused([&] { backend.routingPlan({choices, offsets, out3, out2, out2, 2, 1, 2, 1, 0}); }, "routingPlan");
    refused([&] { backend.routerLoss({four, four, choices, offsets, one, {}, 2, 1, 2, 1, 1, 0}); }, "routerLoss");
    refused([&] { backend.routerLossBackward({one, four, choices, offsets, four, four, 2, 1, 2, 1, 1, 0}); },
            "backward");
  }
}

CONFORMANCE_TEST(routingRefuses) {
  auto& backend = context.backend();
  const auto four = context.result<float>(4), two = context.result<float>(2), one = context.result<float>(1);
  const auto offsets = context.tensor(std::vector<int32_t>{0, 2}), choices = context.tensor(std::vector<int32_t>{0, 1}),
             wrong = context.tensor(std::vector<int32_t>{0, 2}), negative = context.tensor(std::vector<int32_t>{-1, 0});
  const auto out2 = context.result<int32_t>(2), out3 = context.result<int32_t>(3);
  expectError("INVALID_ARGUMENT", [&] { backend.topKRouting({four, four, out2, two, 2, 2, 3, false}); }, "k > experts");
  expectError("INVALID_ARGUMENT", [&] { backend.topKRouting({four, four, out2, two, 2, 2, 0, false}); }, "k 0");
  expectError("SHAPE_MISMATCH", [&] { backend.topKRouting({four, four, out3, two, 2, 2, 1, false}); }, "expert");
  for (const auto& bad : {wrong, negative}) {
    expectError(
        "INVALID_ARGUMENT", [&] { backend.routingPlan({bad, offsets, out3, out2, out2, 2, 1, 2, 1, 0}); }, "expert");
    expectError(
        "INVALID_ARGUMENT", [&] { backend.routerLoss({four, four, bad, offsets, one, {}, 2, 1, 2, 1, 1, 0}); },
        "expert");
    expectError(
        "INVALID_ARGUMENT", [&] { backend.topKRoutingBackward({two, {}, four, bad, two, four, 2, 2, 1, false}); },
        "expert");
    expectError(
        "INVALID_ARGUMENT",
        [&] { backend.routerLossBackward({one, four, bad, offsets, four, four, 2, 1, 2, 1, 1, 0}); }, "expert");
  }
  expectError(
      "SHAPE_MISMATCH", [&] { backend.routingPlan({choices, offsets, out2, out2, out2, 2, 1, 2, 1, 0}); }, "segments");
  expectError(
      "INVALID_ARGUMENT", [&] { backend.routingPlan({choices, offsets, out3, out2, out2, 2, 1, 2, 1, -1}); },
      "capacity");
  expectError("INVALID_ARGUMENT", [&] { backend.unitLoads({wrong, offsets, two, 2, 1, 2, 1}); }, "expert");
  expectError("SHAPE_MISMATCH", [&] { backend.unitLoads({choices, offsets, four, 2, 1, 2, 1}); }, "loads");
  expectError("INVALID_ARGUMENT", [&] { backend.scatterToSlots({two, wrong, two, 2}); }, "a slot out of range");
}

}  // namespace dp_moe::conformance
