#pragma once

#include <cstddef>
#include <type_traits>
#include <utility>

// The fields of an aggregate, without naming them: the one reason why a binding is a single line per op.

namespace dp_moe {

namespace reflect {

/// Converts to anything; only ever used unevaluated.
struct Anything {
  template <class T>
  operator T() const;
};

template <class T, size_t... Is>
constexpr bool constructibleFrom(std::index_sequence<Is...>) {
  return requires { T{(static_cast<void>(Is), Anything{})...}; };
}

constexpr size_t kMaxFields = 26;

template <class T, size_t N = kMaxFields>
constexpr size_t countFields() {
  if constexpr (constructibleFrom<T>(std::make_index_sequence<N>{})) {
    return N;
  } else {
    static_assert(N > 0);
    return countFields<T, N - 1>();
  }
}

}  // namespace reflect

template <class T>
inline constexpr size_t fieldCount = reflect::countFields<T>();

/// Calls f(field...) with a reference to every field of `value`, in order.
template <class T, class F>
constexpr decltype(auto) withFields(T& value, F&& f) {
  constexpr size_t n = fieldCount<std::remove_cv_t<T>>;
  static_assert(n >= 1 && n < reflect::kMaxFields, "add a line below");
#define DP_MOE_FIELDS(count, ...) \
  if constexpr (n == count) {     \
    auto& [__VA_ARGS__] = value;  \
    return f(__VA_ARGS__);        \
  } else
  DP_MOE_FIELDS(1, a)
  DP_MOE_FIELDS(2, a, b)
  DP_MOE_FIELDS(3, a, b, c)
  DP_MOE_FIELDS(4, a, b, c, d)
  DP_MOE_FIELDS(5, a, b, c, d, e)
  DP_MOE_FIELDS(6, a, b, c, d, e, g)
  DP_MOE_FIELDS(7, a, b, c, d, e, g, h)
  DP_MOE_FIELDS(8, a, b, c, d, e, g, h, i)
  DP_MOE_FIELDS(9, a, b, c, d, e, g, h, i, j)
  DP_MOE_FIELDS(10, a, b, c, d, e, g, h, i, j, k)
  DP_MOE_FIELDS(11, a, b, c, d, e, g, h, i, j, k, l)
  DP_MOE_FIELDS(12, a, b, c, d, e, g, h, i, j, k, l, m)
  DP_MOE_FIELDS(13, a, b, c, d, e, g, h, i, j, k, l, m, o)
  DP_MOE_FIELDS(14, a, b, c, d, e, g, h, i, j, k, l, m, o, p)
  DP_MOE_FIELDS(15, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q)
  DP_MOE_FIELDS(16, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r)
  DP_MOE_FIELDS(17, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s)
  DP_MOE_FIELDS(18, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t)
  DP_MOE_FIELDS(19, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u)
  DP_MOE_FIELDS(20, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v)
  DP_MOE_FIELDS(21, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w)
  DP_MOE_FIELDS(22, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x)
  DP_MOE_FIELDS(23, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x, y)
  DP_MOE_FIELDS(24, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x, y, z)
  DP_MOE_FIELDS(25, a, b, c, d, e, g, h, i, j, k, l, m, o, p, q, r, s, t, u, v, w, x, y, z, a1) {}
#undef DP_MOE_FIELDS
}

}  // namespace dp_moe
