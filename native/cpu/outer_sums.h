#pragma once

#include <cstdint>
#include <vector>

#include "kernels/matrix_kernels.h"
#include "scratch.h"
#include "thread_pool.h"

namespace dp_moe {

/// Sums of outer products, one block c [p, d] per group of rows. Rows are taken in passes: first every chunk of the
/// pass is copied into panels, once, then threads share the elements of the blocks; each element takes the chunks in
/// order. How rows fall into passes and blocks into parts is a matter of speed only.
class OuterSums {
 public:
  OuterSums(const MatrixKernels& kernels, ThreadPool& threads, Scratch& scratch, int64_t p, int64_t d);

  /// Queues a group; `block.c` is complete after finish().
  void add(const OuterBlock& block);
  void finish();

 private:
  /// The chunks of one group in this pass.
  struct Group {
    OuterBlock block;
    int64_t firstChunk;
    int64_t endChunk;
  };
  struct Chunk {
    size_t group;
    OuterChunk rows;
  };

  void pack(const Chunk& chunk, int64_t piece) const;
  template <class F>
  void share(int64_t tasks, F&& task);

  const MatrixKernels& kernels_;
  ThreadPool& threads_;
  Scratch& scratch_;
  int64_t p_;
  int64_t d_;
  std::vector<Group> groups_;
  std::vector<Chunk> chunks_;
  int64_t floats_ = 0;  // of the pass's copies
  int64_t rows_ = 0;
};

}  // namespace dp_moe
