// The records of nodebits/ops/records.py: a struct each, which comes from Python as the tuple of
// its fields in the same order.
#pragma once

#include <string>
#include <tuple>
#include <vector>

#include "bindings/arrays.h"
#include "run/recode.h"

namespace nodebits {

struct EdgesIn {
  using Fields = std::tuple<In, In, OptionalIn, OptionalIn>;
  In indptr, indices;
  OptionalIn weight, blocks;

  int64_t rows() const {
    const int64_t r = size(indptr, 0, "indptr") - 1;
    check(r >= 0, "indptr must have at least one entry");
    return r;
  }
  int64_t count() const { return size(indices, 0, "indices"); }
};

struct SourceIn {
  using Fields = std::tuple<In, int, int64_t, int>;
  In packed;
  int bits = 0;
  int64_t num_cols = 0;
  int coding = 0;

  int64_t rows() const { return size(packed, 0, "packed"); }
  const uint8_t* checked() const {
    check_bits(bits);
    check_cols(num_cols);
    if (!has_coding(coding, bits))
      throw CodingError("coding " + std::to_string(coding) + " in " + std::to_string(bits) +
                        " bits has no header in csrc/codings of this build: add it and build "
                        "again, or decode() the rows");
    return data<uint8_t>(packed, "packed", {rows(), packed_row_bytes(num_cols, bits)});
  }
};

struct MixedIn {
  using Fields = std::tuple<In, In, std::vector<int64_t>, int64_t>;
  In packed, order;
  std::vector<int64_t> counts;
  int64_t num_cols = 0;
};

struct WeightIn {
  using Fields = std::tuple<In, int, bool>;
  In packed;
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

struct EpilogueIn {
  using Fields = std::tuple<In, OptionalIn, OptionalIn, OptionalIn, OptionalIn>;
  In col_scale;
  OptionalIn col_offset, row_offset, row_scale, bias;
};

struct ProductIn {
  using Fields = std::tuple<SourceIn, WeightIn, EpilogueIn>;
  SourceIn source;
  WeightIn weight;
  EpilogueIn epilogue;
};

struct OwnIn {
  using Fields = std::tuple<OptionalIn, OptionalIn, OptionalIn, OptionalIn>;
  OptionalIn acc_scale, acc_offset, own, own_factor;
};

struct OutputIn {
  using Fields = std::tuple<In, In, int, OptionalIn, OptionalIn, OptionalIn, OptionalIn>;
  In scale, zero_point;
  int bits = 0;
  OptionalIn row_factor, widths, position, shift;
};

struct SinkIn {
  using Fields = std::tuple<bool, std::vector<OutputIn>, OptionalIn, OptionalIn>;
  bool relu = false;
  std::vector<OutputIn> outputs;
  OptionalIn post_scale, post_shift;
};

struct RoundsIn {
  using Fields = std::tuple<In, In, In, std::vector<int>>;
  In scale, zero_point, made_with;
  std::vector<int> bits;
};

struct StepsIn {
  using Fields = std::tuple<std::vector<double>, bool, double>;
  std::vector<double> coefficients;
  bool laplacian = false;
  double teleport = 0.0;
};

template <class T>
concept Record = requires { typename T::Fields; };

}  // namespace nodebits

namespace nanobind::detail {

template <nodebits::Record T>
struct type_caster<T> {
  using Caster = make_caster<typename T::Fields>;
  NB_TYPE_CASTER(T, Caster::Name)

  bool from_python(handle source, uint8_t flags, cleanup_list* cleanup) noexcept {
    Caster fields;
    if (!fields.from_python(source, flags, cleanup)) return false;
    value = std::make_from_tuple<T>(fields.operator typename T::Fields());
    return true;
  }
};

}  // namespace nanobind::detail
