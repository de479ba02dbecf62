#pragma once

/// UNROLL stands before a loop whose arrays must end up in registers, UNROLL_BY(n) before one that would take too many
/// if unrolled further.
#ifdef __CUDACC__
#define DP_MOE_PRAGMA(text) _Pragma(#text)
#define UNROLL DP_MOE_PRAGMA(unroll)
#define UNROLL_BY(n) DP_MOE_PRAGMA(unroll n)
#else
#define UNROLL
#define UNROLL_BY(n)
#endif
