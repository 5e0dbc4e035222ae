// Loops over results of two arrays of different shapes, as torch broadcasts them.
#pragma once

#include <algorithm>
#include <cstdint>

#include "plan/program.h"
#include "run/schedule.h"

namespace nodebits::plan {

// An operand: an array, or one number.
struct Operand {
  In value;
  Number number;
  bool is_number = false;

  Operand() = default;
  explicit Operand(Reader& r) : is_number(r.at_number()) {
    if (is_number) {
      number = r.number();
    } else {
      value = r.value();
    }
  }
};

// How a result of `ndim` merged dimensions is walked: the last has strides of 0 or 1.
template <int kOperands>
struct Walk {
  int ndim = 0;  // of the result, before merging
  int64_t shape[kMostDims];
  int merged = 0;
  int64_t length[kMostDims];
  int64_t stride[kOperands][kMostDims];

  int64_t rows() const {
    int64_t n = 1;
    for (int i = 0; i + 1 < merged; ++i) n *= length[i];
    return n;
  }
  int64_t inner() const { return merged == 0 ? 1 : length[merged - 1]; }

  // Of operands that are null where they are a number. Throws ShapeError.
  explicit Walk(const Value* const (&operands)[kOperands]) {
    for (const Value* v : operands) ndim = std::max(ndim, v == nullptr ? 0 : v->ndim);
    for (int d = 0; d < ndim; ++d) {
      shape[d] = 1;
      for (const Value* v : operands) {
        const int64_t n = length_of(v, d);
        if (n == 1) continue;
        if (shape[d] != 1 && shape[d] != n) refuse(operands);
        shape[d] = n;
      }
    }
    int64_t step[kOperands];
    std::fill_n(step, kOperands, int64_t{1});
    // From the last dimension to the first, then turned around.
    for (int d = ndim - 1; d >= 0; --d) {
      if (shape[d] == 1) continue;
      bool merges = merged > 0;
      int64_t here[kOperands];
      for (int i = 0; i < kOperands; ++i) {
        const int64_t n = length_of(operands[i], d);
        here[i] = n == 1 ? 0 : step[i];
        step[i] *= n;
        if (merged > 0) merges = merges && here[i] == stride[i][merged - 1] * length[merged - 1];
      }
      if (merges) {
        length[merged - 1] *= shape[d];
        continue;
      }
      length[merged] = shape[d];
      for (int i = 0; i < kOperands; ++i) stride[i][merged] = here[i];
      ++merged;
    }
    std::reverse(length, length + merged);
    for (auto& s : stride) std::reverse(s, s + merged);
  }

  // Calls f(offset of the result, length, offsets of the operands, their inner strides).
  template <class F>
  void each(int threads, const F& f) const {
    const int64_t n = inner(), outer = rows();
    if (n == 0 || outer == 0) return;
    int64_t inner_stride[kOperands];
    for (int i = 0; i < kOperands; ++i) inner_stride[i] = merged == 0 ? 0 : stride[i][merged - 1];
    if (outer == 1) {
      split_rows(n, 1, threads, [&](int64_t begin, int64_t end) {
        int64_t at[kOperands];
        for (int i = 0; i < kOperands; ++i) at[i] = begin * inner_stride[i];
        f(begin, end - begin, at, inner_stride);
      });
      return;
    }
    split_rows(outer, n, threads, [&](int64_t begin, int64_t end) {
      int64_t index[kMostDims] = {}, at[kOperands] = {};
      int64_t rest = begin;
      for (int d = merged - 2; d >= 0; --d) {
        index[d] = rest % length[d];
        rest /= length[d];
        for (int i = 0; i < kOperands; ++i) at[i] += index[d] * stride[i][d];
      }
      for (int64_t row = begin; row < end; ++row) {
        f(row * n, n, at, inner_stride);
        for (int d = merged - 2; d >= 0; --d) {
          for (int i = 0; i < kOperands; ++i) at[i] += stride[i][d];
          if (++index[d] < length[d]) break;
          for (int i = 0; i < kOperands; ++i) at[i] -= stride[i][d] * length[d];
          index[d] = 0;
        }
      }
    });
  }

 private:
  int64_t length_of(const Value* v, int d) const {
    const int at = v == nullptr ? -1 : d - (ndim - v->ndim);
    return at < 0 ? 1 : v->shape[at];
  }

  [[noreturn]] static void refuse(const Value* const (&operands)[kOperands]) {
    std::string text;
    for (const Value* v : operands) {
      if (v != nullptr) text += (text.empty() ? "" : " and ") + shape_text(*v);
    }
    throw ShapeError("the shapes " + text + " do not fit each other");
  }
};

}  // namespace nodebits::plan
