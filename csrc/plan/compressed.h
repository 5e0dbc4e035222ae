// Compressed rows of edges as steps read them.
#pragma once

#include <cstdint>

#include "plan/program.h"

namespace nodebits::plan {

struct Csr {
  const int64_t* indptr;
  const int32_t* indices;
  int64_t rows;
  int64_t edges;
};

inline Csr checked_csr(Frame& f, In indptr, In indices) {
  const int64_t edges = f.expect(indices, "indices", DType::i32, 1).shape[0];
  f.check_rows(indptr, edges);
  return {f[indptr].as<int64_t>(), f[indices].as<int32_t>(), f[indptr].shape[0] - 1, edges};
}

}  // namespace nodebits::plan
