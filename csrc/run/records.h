// The records of nodebits/ops/records.py, over any handle A of an array: what Python passes, or a
// value of a plan. How such an array is looked at says Access<A>:
//   data<T>(array, name, shape)  its data as T, after a check of dtype, shape and contiguity
//   size(array, axis, name)      its length along an axis
// Both throw ShapeError. `Fields` are the fields of a record in the order of the schemas.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <optional>
#include <string>
#include <tuple>
#include <vector>

#include "contract/kernels.h"
#include "run/checks.h"
#include "run/recode.h"

namespace nodebits {

template <class A>
struct Access;

template <class T, class A>
auto data(const A& array, const char* name, std::initializer_list<int64_t> shape) {
  return Access<A>::template data<T>(array, name, shape);
}

template <class A>
int64_t size(const A& array, int axis, const char* name) {
  return Access<A>::size(array, axis, name);
}

template <class A>
struct EdgesOf {
  using Fields = std::tuple<A, A, std::optional<A>, std::optional<A>>;
  A indptr, indices;
  std::optional<A> weight, blocks;

  int64_t rows() const {
    const int64_t r = size(indptr, 0, "indptr") - 1;
    check(r >= 0, "indptr must have at least one entry");
    return r;
  }
  int64_t count() const { return size(indices, 0, "indices"); }
};

template <class A>
struct SourceOf {
  using Fields = std::tuple<A, int, int64_t, int>;
  A packed;
  int bits = 0;
  int64_t num_cols = 0;
  int coding = 0;

  int64_t rows() const { return size(packed, 0, "packed"); }
  const uint8_t* checked() const {
    check_bits(bits);
    check_cols(num_cols);
    if (coding != 0 && !has_coding(coding, bits))
      throw CodingError("coding " + std::to_string(coding) + " in " + std::to_string(bits) +
                        " bits has no header in csrc/codings of this build: add it and build "
                        "again, or decode() the rows");
    return data<uint8_t>(packed, "packed", {rows(), packed_row_bytes(num_cols, bits)});
  }
};

// Rows of edges, and which is whose.
template <class A>
struct JoinedOf {
  using Fields = std::tuple<A, int, int64_t, int, std::optional<A>>;
  SourceOf<A> rows;
  std::optional<A> order;

  JoinedOf() = default;
  JoinedOf(const A& packed, int bits, int64_t num_cols, int coding, const std::optional<A>& places)
      : rows{packed, bits, num_cols, coding}, order(places) {}
};

template <class A>
struct MixedOf {
  using Fields = std::tuple<A, A, std::vector<int64_t>, int64_t>;
  A packed, order;
  std::vector<int64_t> counts;
  int64_t num_cols = 0;
};

template <class A>
struct WeightOf {
  using Fields = std::tuple<A, int, bool>;
  A packed;
  int bits = 0;
  bool midrise = false;

  int64_t rows() const { return size(packed, 0, "w_packed"); }
  // Of `depth` columns, which the other factor has too.
  WeightArgs args(int64_t depth) const {
    check_weight_bits(bits, midrise);
    return {data<uint8_t>(packed, "w_packed", {rows(), packed_row_bytes(depth, bits)}), rows(),
            depth, bits, midrise};
  }
};

template <class A>
struct EpilogueOf {
  using Fields =
      std::tuple<A, std::optional<A>, std::optional<A>, std::optional<A>, std::optional<A>>;
  A col_scale;
  std::optional<A> col_offset, row_offset, row_scale, bias;
};

template <class A>
struct ProductOf {
  using Fields = std::tuple<SourceOf<A>, WeightOf<A>, EpilogueOf<A>>;
  SourceOf<A> source;
  WeightOf<A> weight;
  EpilogueOf<A> epilogue;
};

template <class A>
struct OwnOf {
  using Fields = std::tuple<std::optional<A>, std::optional<A>, std::optional<A>, std::optional<A>>;
  std::optional<A> acc_scale, acc_offset, own, own_factor;
};

template <class A>
struct OutputOf {
  using Fields =
      std::tuple<A, A, int, std::optional<A>, std::optional<A>, std::optional<A>, std::optional<A>>;
  A scale, zero_point;
  int bits = 0;
  std::optional<A> row_factor, widths, position, shift;
};

template <class A>
struct SinkOf {
  using Fields = std::tuple<bool, std::vector<OutputOf<A>>, std::optional<A>, std::optional<A>>;
  bool relu = false;
  std::vector<OutputOf<A>> outputs;
  std::optional<A> post_scale, post_shift;
};

template <class A>
struct RoundsOf {
  using Fields = std::tuple<A, A, A, std::vector<int>>;
  A scale, zero_point, made_with;
  std::vector<int> bits;
};

struct StepsRecord {
  using Fields = std::tuple<std::vector<double>, bool, double>;
  std::vector<double> coefficients;
  bool laplacian = false;
  double teleport = 0.0;
};

}  // namespace nodebits
