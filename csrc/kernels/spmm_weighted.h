// Neighbour sums with one u8 weight per edge and head. Codes are unpacked in column chunks and multiplied in int32.
// Included once per level, inside the level's anonymous namespace.

template <int B>
void spmm_weighted_rows_as(const SpmmArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kChunk = 512;
  const int64_t stride = packed_row_bytes(a.num_cols, B);
  const int64_t width = a.num_cols / a.heads;
  uint8_t codes[kChunk];
  for (int64_t row = begin; row < end; ++row) {
    int32_t* out = a.out + row * a.num_cols;
    __builtin_memset(out, 0, static_cast<size_t>(a.num_cols) * 4);
    for (int64_t c0 = 0; c0 < a.num_cols; c0 += kChunk) {
      const int64_t n = a.num_cols - c0 < kChunk ? a.num_cols - c0 : kChunk;
      for (int64_t e = a.indptr[row]; e < a.indptr[row + 1]; ++e) {
        const int64_t ahead = e + 16 < a.num_edges ? e + 16 : a.num_edges - 1;
        const uint8_t* next = a.packed + static_cast<int64_t>(a.indices[ahead]) * stride + c0 * B / 8;
        for (int64_t k = 0; k < packed_row_bytes(n, B); k += 64) __builtin_prefetch(next + k);
        const uint8_t* packed = a.packed + static_cast<int64_t>(a.indices[e]) * stride + c0 * B / 8;
        unpack_codes<B>(packed, n, codes);
        for (int64_t h = c0 / width; h * width < c0 + n; ++h) {
          const int32_t w = a.weight[e * a.heads + h];
          const int64_t from = h * width > c0 ? h * width - c0 : 0;
          const int64_t to = (h + 1) * width - c0 < n ? (h + 1) * width - c0 : n;
          for (int64_t c = from; c < to; ++c) out[c0 + c] += w * codes[c];
        }
      }
    }
  }
}

void spmm_weighted_rows(const SpmmArgs& a, int64_t begin, int64_t end) {
  switch (a.bits) {
    case 1: return spmm_weighted_rows_as<1>(a, begin, end);
    case 2: return spmm_weighted_rows_as<2>(a, begin, end);
    case 4: return spmm_weighted_rows_as<4>(a, begin, end);
    default: return spmm_weighted_rows_as<8>(a, begin, end);
  }
}
