// Edge softmax: integer numerators rne(exp(e - max_row) * qmax) and their row sums. exp is the polynomial that
// ops/reference.py states; the operations and their order are the same here.
// Included once per level, inside the level's anonymous namespace.

inline float edge_score(float src, float dst, float slope) {
  float e = src + dst;
  e = e > 0.0f ? e : e * slope;
  return e == e ? e : -__builtin_inff();  // NaN weighs nothing
}

// exp(t) * qmax rounded, for t <= 0; NaN (an infinite row maximum) becomes exp(-87), code 0.
inline uint8_t softmax_code(float t, float qmax) {
  constexpr float kMagic = 12582912.0f;  // 1.5 * 2^23 rounds to an integer and leaves it in the low bits
  t = t > -87.0f ? t : -87.0f;
  const float shifted = t * 1.44269504088896341f + kMagic;
  const float k = shifted - kMagic;
  const float r = (t - k * 0.693359375f) - k * -2.12194440e-4f;
  float p = 1.3888889e-3f;
  p = p * r + 8.3333333e-3f;
  p = p * r + 4.1666668e-2f;
  p = p * r + 1.6666667e-1f;
  p = p * r + 0.5f;
  p = p * r + 1.0f;
  p = p * r + 1.0f;
  const int32_t power = __builtin_bit_cast(int32_t, shifted) - 0x4b400000;
  const float two_k = __builtin_bit_cast(float, (power + 127) << 23);
  float v = p * two_k * qmax;
  v = v < qmax ? v : qmax;
  return static_cast<uint8_t>(__builtin_bit_cast(uint32_t, v + 8388608.0f));
}

void edge_softmax_rows(const SoftmaxArgs& a, int64_t begin, int64_t end) {
  constexpr int64_t kHeads = 64;   // heads handled together
  constexpr int64_t kChunk = 1024;  // scores held between the gather and the exponential
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  for (int64_t i = begin; i < end; ++i) {
    const int64_t from = a.indptr[i];
    const int64_t to = a.indptr[i + 1];
    for (int64_t h0 = 0; h0 < a.heads; h0 += kHeads) {
      const int64_t n = a.heads - h0 < kHeads ? a.heads - h0 : kHeads;
      const float* dst = a.score_dst + i * a.heads + h0;
      float top[kHeads];
      int32_t sum[kHeads];
      for (int64_t h = 0; h < n; ++h) {
        top[h] = -__builtin_inff();
        sum[h] = 0;
      }
      for (int64_t e = from; e < to; ++e) {
        const float* src = a.score_src + static_cast<int64_t>(a.indices[e]) * a.heads + h0;
        for (int64_t h = 0; h < n; ++h) {
          const float score = edge_score(src[h], dst[h], a.negative_slope);
          top[h] = score > top[h] ? score : top[h];
        }
      }
      const int64_t edges_per_chunk = kChunk / n;
      for (int64_t e0 = from; e0 < to; e0 += edges_per_chunk) {
        const int64_t edges = to - e0 < edges_per_chunk ? to - e0 : edges_per_chunk;
        float t[kChunk];
        uint8_t code[kChunk];
        for (int64_t e = 0; e < edges; ++e) {
          const float* src = a.score_src + static_cast<int64_t>(a.indices[e0 + e]) * a.heads + h0;
          for (int64_t h = 0; h < n; ++h) t[e * n + h] = edge_score(src[h], dst[h], a.negative_slope) - top[h];
        }
        for (int64_t k = 0; k < edges * n; ++k) code[k] = softmax_code(t[k], qmax);
        for (int64_t e = 0; e < edges; ++e) {
          uint8_t* out = a.codes + (e0 + e) * a.heads + h0;
          for (int64_t h = 0; h < n; ++h) {
            out[h] = code[e * n + h];
            sum[h] += code[e * n + h];
          }
        }
      }
      for (int64_t h = 0; h < n; ++h) a.row_sum[i * a.heads + h0 + h] = sum[h];
    }
  }
}
