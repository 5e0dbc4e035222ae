// Graph structure: edge lists to rows, and the checks that let the kernels trust their indices.
#pragma once

#include <cstdint>

namespace nodebits {

// Position of the first value outside [0, limit), or -1.
template <class T>
int64_t first_outside(const T* values, int64_t n, int64_t limit, int threads);

// Position of the first i with indptr[i] > indptr[i + 1], -1 if there is none.
int64_t first_descent(const int64_t* indptr, int64_t num_rows);

// Stable counting sort of edges by row; all indices were checked before. `perm` may be null.
void coo_to_csr(const int64_t* row, const int64_t* col, int64_t num_edges, int64_t num_rows,
                int64_t* indptr, int32_t* indices, int64_t* perm, int threads);

}  // namespace nodebits
