// One pass over float features: the largest magnitude of every row, whether any value is negative,
// and, where few values are not zero, the columns and codes of those that are not.
// Included once per level, inside the level's anonymous namespace.

// Appends the columns and the bits of the values of one row that are not zero; returns how many, or
// -1 when they do not fit. The largest magnitude comes out as its bits, whose order is that of the
// floats, with NaN above infinity.
inline int64_t scan_row(const float* x, int64_t n, int64_t room, int32_t* cols, float* values,
                        uint32_t* largest, uint32_t* signs) {
  int64_t count = 0;
  int64_t c = 0;
  uint32_t top = 0, sign = 0;
#if NODEBITS_AVX512
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512(), any = _mm512_setzero_si512();
  __m512i column = _mm512_set_epi32(15, 14, 13, 12, 11, 10, 9, 8, 7, 6, 5, 4, 3, 2, 1, 0);
  for (; c < n; c += 16) {
    const __mmask16 inside = n - c >= 16 ? 0xffff : static_cast<__mmask16>((1u << (n - c)) - 1);
    // A few rows ahead: the work between two rows is more than hardware prefetchers wait.
    __builtin_prefetch(x + c + 1024);
    const __m512i v = _mm512_maskz_loadu_epi32(inside, x + c);
    const __mmask16 hit = _mm512_test_epi32_mask(v, magnitude);
    if (hit != 0) {
      most = _mm512_max_epu32(most, _mm512_and_si512(v, magnitude));
      any = _mm512_mask_or_epi32(any, hit, any, v);
      const int found = __builtin_popcount(hit);
      if (count >= 0 && count + found <= room) {
        // Compressed in a register: compressing to memory takes a hundred cycles on some machines.
        const __mmask16 front = static_cast<__mmask16>((1u << found) - 1);
        _mm512_mask_storeu_epi32(cols + count, front, _mm512_maskz_compress_epi32(hit, column));
        _mm512_mask_storeu_epi32(values + count, front, _mm512_maskz_compress_epi32(hit, v));
        count += found;
      } else {
        count = -1;
      }
    }
    column = _mm512_add_epi32(column, _mm512_set1_epi32(16));
  }
  top = _mm512_reduce_max_epu32(most);
  sign = static_cast<uint32_t>(_mm512_reduce_or_epi32(any));
#elif NODEBITS_AVX2
  const __m256i magnitude = _mm256_set1_epi32(0x7fffffff), none = _mm256_setzero_si256();
  __m256i most = none, any = none;
  // Bit k of the result: whether lane k is not zero.
  const auto look = [&](__m256i v) {
    const __m256i size = _mm256_and_si256(v, magnitude);
    const __m256i empty = _mm256_cmpeq_epi32(size, none);
    most = _mm256_max_epu32(most, size);
    any = _mm256_or_si256(any, _mm256_andnot_si256(empty, v));
    return ~static_cast<uint32_t>(_mm256_movemask_ps(_mm256_castsi256_ps(empty))) & 0xffu;
  };
  const auto keep = [&](uint32_t hit, int64_t start) {
    if (count < 0 || count + __builtin_popcount(hit) > room) {
      count = -1;
      return;
    }
    for (; hit != 0; hit &= hit - 1) {
      const int64_t j = start + __builtin_ctz(hit);
      cols[count] = static_cast<int32_t>(j);
      values[count] = x[j];
      ++count;
    }
  };
  // One branch for 32 values: with few that are not zero most are passed over.
  for (; c + 32 <= n; c += 32) {
    const __m256i v0 = _mm256_castps_si256(_mm256_loadu_ps(x + c));
    const __m256i v1 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 8));
    const __m256i v2 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 16));
    const __m256i v3 = _mm256_castps_si256(_mm256_loadu_ps(x + c + 24));
    const __m256i together = _mm256_or_si256(_mm256_or_si256(v0, v1), _mm256_or_si256(v2, v3));
    if (_mm256_testz_si256(together, magnitude)) continue;
    keep(look(v0) | look(v1) << 8 | look(v2) << 16 | look(v3) << 24, c);
  }
  const __m256i lane = _mm256_set_epi32(7, 6, 5, 4, 3, 2, 1, 0);
  for (; c < n; c += 8) {
    const int left = static_cast<int>(n - c);
    const __m256i inside = _mm256_cmpgt_epi32(_mm256_set1_epi32(left), lane);
    const uint32_t hit = look(_mm256_castps_si256(_mm256_maskload_ps(x + c, inside)));
    if (hit != 0) keep(hit, c);
  }
  uint32_t lanes[2][8];
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[0]), most);
  _mm256_storeu_si256(reinterpret_cast<__m256i*>(lanes[1]), any);
  for (int i = 0; i < 8; ++i) {
    top = lanes[0][i] > top ? lanes[0][i] : top;
    sign |= lanes[1][i];
  }
#else
  for (; c < n; c += 8) {
    const int64_t stop = n - c < 8 ? n : c + 8;
    uint32_t word[8] = {};
    __builtin_memcpy(word, x + c, static_cast<size_t>(stop - c) * 4);
    uint32_t together = 0;
    for (int i = 0; i < 8; ++i) together |= word[i];
    if ((together & 0x7fffffffu) == 0) continue;
    for (int64_t j = c; j < stop; ++j) {
      const uint32_t bits = word[j - c] & 0x7fffffffu;
      if (bits == 0) continue;
      top = bits > top ? bits : top;
      sign |= word[j - c];
      if (count >= 0 && count < room) {
        cols[count] = static_cast<int32_t>(j);
        values[count] = x[j];
        ++count;
      } else {
        count = -1;
      }
    }
  }
#endif
  *largest = top;
  *signs = sign >> 31;
  return count;
}

// The largest magnitude and the signs alone, as of scan_row.
inline void scan_extent(const float* x, int64_t n, uint32_t* largest, uint32_t* signs) {
  uint32_t top = 0, sign = 0;
  int64_t c = 0;
#if NODEBITS_AVX512
  const __m512i magnitude = _mm512_set1_epi32(0x7fffffff);
  __m512i most = _mm512_setzero_si512(), any = _mm512_setzero_si512();
  by_sixteen(n, false, [&](int64_t j, __mmask16 lanes, __mmask16) {
    __builtin_prefetch(x + j + 1024);  // as in scan_row
    const __m512i v = _mm512_maskz_loadu_epi32(lanes, x + j);
    most = _mm512_max_epu32(most, _mm512_and_si512(v, magnitude));
    any = _mm512_mask_or_epi32(any, _mm512_test_epi32_mask(v, magnitude), any, v);
  });
  top = _mm512_reduce_max_epu32(most);
  sign = static_cast<uint32_t>(_mm512_reduce_or_epi32(any));
  c = n;
#endif
  for (; c < n; ++c) {
    const uint32_t word = __builtin_bit_cast(uint32_t, x[c]);
    const uint32_t size = word & 0x7fffffffu;
    top = size > top ? size : top;
    sign |= size != 0 ? word : 0;
  }
  *largest = top;
  *signs = sign >> 31;
}

// Codes of a row whose largest magnitude is known, while the row is in the cache.
inline void pack_scanned_row(const ScanArgs& a, int64_t i, float extent) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  const int half = 1 << (a.bits - 1);
  const int positive = (1 << a.bits) - 1 - half;
  const float zero_point = a.symmetric ? static_cast<float>(half) : 0.0f;
  float scale = extent / (a.symmetric ? static_cast<float>(positive > 1 ? positive : 1) : qmax);
  scale = scale < a.min_scale ? 1.0f : scale;
  a.scale[i] = scale;
  const float* x = a.x + i * a.num_cols;
  uint8_t* to = a.packed + i * packed_row_bytes(a.num_cols, a.bits);
  float room;
  const float* inverse = exact_inverses(&scale, &zero_point, 1, &room);
  quantize_packed<false>(x, a.num_cols, 1.0f, &scale, &zero_point, inverse, qmax, a.bits, 0, to);
}

// Rows [begin, end); indices and codes go to the front of the block's own room. Returns how many,
// or -1 when they did not fit (extents and signs are complete all the same).
int64_t scan_rows(const ScanArgs& a, int64_t begin, int64_t end, int32_t* indices, uint8_t* codes,
                  float* values, int64_t room, ScanFlags* flags) {
  const float qmax = static_cast<float>((1 << a.bits) - 1);
  int64_t total = 0;
  uint32_t signs = 0, top = 0;
  bool mixed = false;
  for (int64_t i = begin; i < end; ++i) {
    uint32_t largest, sign;
    if (a.scale != nullptr) {
      scan_extent(a.x + i * a.num_cols, a.num_cols, &largest, &sign);
      signs |= sign;
      top = largest > top ? largest : top;
      const float extent = __builtin_bit_cast(float, largest);
      a.extent[i] = extent;
      pack_scanned_row(a, i, extent);
      continue;
    }
    const int64_t left = total < 0 ? 0 : room - total;
    const int64_t n = scan_row(a.x + i * a.num_cols, a.num_cols, left,
                               indices + (total < 0 ? 0 : total), values, &largest, &sign);
    signs |= sign;
    top = largest > top ? largest : top;
    const float extent = __builtin_bit_cast(float, largest);
    a.extent[i] = extent;
    if (n < 0 || total < 0) {
      total = -1;
      continue;
    }
    a.counts[i] = n;
    float scale = extent / qmax;
    scale = scale < a.min_scale ? 1.0f : scale;
    uint8_t* row = codes + total;
    int32_t sum = 0;
    uint32_t differ = 0;
    for (int64_t k = 0; k < n; ++k) {
      const float code = rounded_code(values[k] / scale, qmax);
      row[k] = static_cast<uint8_t>(__builtin_bit_cast(uint32_t, code));
    }
    for (int64_t k = 0; k < n; ++k) {
      sum += row[k];
      differ |= row[k] ^ row[0];
    }
    a.first[i] = n > 0 ? row[0] : 0;
    a.sums[i] = sum;
    mixed |= differ != 0;
    total += n;
  }
  flags->negative = signs != 0;
  flags->mixed = mixed;
  flags->finite = top < 0x7f800000u;
  return total;
}
