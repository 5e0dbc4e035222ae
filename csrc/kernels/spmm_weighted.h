// Neighbour sums with one u8 weight per edge and head, for rows of bytes; narrower rows were
// unpacked before. A product of two bytes fits 16 bits, so the multiplication is a 16-bit one.
// Included once per level, inside the level's anonymous namespace.

constexpr int kWeightedBits = 8;

void spmm_weighted_rows(const SpmmArgs& a, int64_t begin, int64_t end) {
  const int64_t width = a.num_cols / a.heads;
  for (int64_t row = begin; row < end; ++row) {
    int32_t* __restrict__ out = a.out + row * a.num_cols;
    __builtin_memset(out, 0, static_cast<size_t>(a.num_cols) * 4);
    for (int64_t e = a.indptr[row]; e < a.indptr[row + 1]; ++e) {
      const int64_t ahead = e + 16 < a.num_edges ? e + 16 : a.num_edges - 1;
      const uint8_t* next = a.packed + static_cast<int64_t>(a.indices[ahead]) * a.num_cols;
      for (int64_t k = 0; k < a.num_cols; k += 64) __builtin_prefetch(next + k);
      const uint8_t* codes = a.packed + static_cast<int64_t>(a.indices[e]) * a.num_cols;
      for (int64_t h = 0; h < a.heads; ++h) {
        const uint16_t w = a.weight[e * a.heads + h];
        const uint8_t* __restrict__ x = codes + h * width;
        int32_t* __restrict__ y = out + h * width;
        for (int64_t c = 0; c < width; ++c) y[c] += static_cast<uint16_t>(w * x[c]);
      }
    }
  }
}
