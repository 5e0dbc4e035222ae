// Tensors as the headers of files say them (docs/format.md): types, shapes, sizes.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "plan/json_reader.h"
#include "plan/plan.h"

namespace nodebits {

struct StoredType {
  const char* name;
  const char* torch;  // as its checksum spells it
  int64_t bytes;
  int plan;  // DType; -1: no value of a plan has it
};

inline constexpr StoredType kTypes[] = {
    {"F64", "torch.float64", 8, int(DType::f64)},
    {"F32", "torch.float32", 4, int(DType::f32)},
    {"F16", "torch.float16", 2, -1},
    {"BF16", "torch.bfloat16", 2, -1},
    {"I64", "torch.int64", 8, int(DType::i64)},
    {"I32", "torch.int32", 4, int(DType::i32)},
    {"I16", "torch.int16", 2, -1},
    {"I8", "torch.int8", 1, -1},
    {"U8", "torch.uint8", 1, int(DType::u8)},
    {"U16", "torch.uint16", 2, -1},
    {"BOOL", "torch.bool", 1, int(DType::b8)},
};

// An index of kTypes; -1 where no tensor has such a type.
inline int type_named(std::string_view name) {
  for (const StoredType& known : kTypes) {
    if (name == known.name) return int(&known - kTypes);
  }
  return -1;
}

inline std::vector<int64_t> read_shape(JsonReader& reader) {
  constexpr size_t kMostAxes = 8;
  std::vector<int64_t> shape;
  reader.array([&] {
    if (shape.size() == kMostAxes) throw JsonError("a tensor of more than 8 axes");
    shape.push_back(reader.integer());
  });
  return shape;
}

// Bytes of a tensor; -1 where no memory has so many.
inline int64_t size_of(int type, const std::vector<int64_t>& shape) {
  auto size = static_cast<unsigned __int128>(kTypes[type].bytes);
  for (const int64_t n : shape) {
    // Shapes with a zero may have any other sizes, which must not overflow either.
    if (n > int64_t{1} << 48 || (size != 0 && size >> 62 != 0)) return -1;
    size *= static_cast<unsigned __int128>(n);
  }
  return size >> 62 != 0 ? -1 : static_cast<int64_t>(size);
}

}  // namespace nodebits
