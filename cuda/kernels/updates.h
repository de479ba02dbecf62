#pragma once

#include "params.h"

namespace dp_moe {

// The kernels noisySgd, noisyAdam and gaussian take the params of the ops as they are. A thread makes one block of
// noise and the eight elements it belongs to.
constexpr int kUpdateThreads = 128;

}  // namespace dp_moe
