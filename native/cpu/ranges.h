#pragma once

#include <algorithm>
#include <cstdint>
#include <string>

#include "error.h"
#include "params.h"
#include "thread_pool.h"

namespace dp_moe {

/// f(begin, end) over [0, count) in ranges of `perTask`, shared between the threads.
template <class F>
void parallelRanges(ThreadPool& threads, int64_t count, int64_t perTask, F&& f) {
  threads.parallelFor((count + perTask - 1) / perTask,
                      [&](int64_t task, int) { f(task * perTask, std::min((task + 1) * perTask, count)); });
}

/// Rows of d elements that make a task worth handing out.
inline int64_t rowsPerTask(int64_t d) { return std::max<int64_t>(1, 16384 / std::max<int64_t>(d, 1)); }

/// The rows that exist: the last of `countOffsets`, or all.
inline int64_t countedRows(const Input<int32_t>& countOffsets, int64_t rows) {
  if (countOffsets.data == nullptr || countOffsets.size == 0) return rows;
  return std::clamp<int64_t>(countOffsets.data[countOffsets.size - 1], 0, rows);
}

/// The first `count` indices within [least, limit); the first that is not is named.
inline void checkIndices(const Input<int32_t>& index, int64_t count, int64_t least, int64_t limit, const char* op,
                         const char* field) {
  for (int64_t i = 0; i < count; ++i) {
    if (index.data[i] < least || index.data[i] >= limit) {
      throw Error("INVALID_ARGUMENT", std::string(op) + ": expected " + field + " in [" + std::to_string(least) + ", " +
                                          std::to_string(limit) + "), got " + std::to_string(index.data[i]) +
                                          " at position " + std::to_string(i));
    }
  }
}

}  // namespace dp_moe
