// Copies, with the rows to come on their way to the cache.
#include "run/take.h"

#include <algorithm>
#include <cstring>

#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kLine = 64;
constexpr int64_t kAhead = 16;     // rows between a prefetch and its use
constexpr int64_t kMostAhead = 4;  // lines of a row that are asked for; the others follow
constexpr int64_t kMiss = 64;      // elementary steps that a cache miss is worth

void prefetch(const uint8_t* row, int64_t bytes) {
  const int64_t most = std::min(bytes, kMostAhead * kLine);
  for (int64_t at = 0; at < most; at += kLine) __builtin_prefetch(row + at);
}

template <int64_t kBytes>
void take_fixed(const uint8_t* table, const int64_t* index, int64_t begin, int64_t end,
                uint8_t* out) {
  for (int64_t i = begin; i < end; ++i) {
    if (i + kAhead < end) __builtin_prefetch(table + index[i + kAhead] * kBytes);
    std::memcpy(out + i * kBytes, table + index[i] * kBytes, kBytes);
  }
}

}  // namespace

void take_rows(const uint8_t* table, int64_t row_bytes, const int64_t* index, int64_t rows,
               uint8_t* out, int threads) {
  if (row_bytes == 0) return;
  split_rows(rows, row_bytes / 8 + kMiss, threads, [&](int64_t begin, int64_t end) {
    switch (row_bytes) {  // short rows of common sizes: a call of memcpy would take longer
      case 1:
        return take_fixed<1>(table, index, begin, end, out);
      case 4:
        return take_fixed<4>(table, index, begin, end, out);
      case 8:
        return take_fixed<8>(table, index, begin, end, out);
      case 16:
        return take_fixed<16>(table, index, begin, end, out);
      case 32:
        return take_fixed<32>(table, index, begin, end, out);
      case 64:
        return take_fixed<64>(table, index, begin, end, out);
      default:
        break;
    }
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) prefetch(table + index[i + kAhead] * row_bytes, row_bytes);
      std::memcpy(out + i * row_bytes, table + index[i] * row_bytes,
                  static_cast<size_t>(row_bytes));
    }
  });
}

void take_indptr(const int64_t* indptr, const int64_t* index, int64_t rows, int64_t* out) {
  out[0] = 0;
  for (int64_t i = 0; i < rows; ++i) {
    if (i + kAhead < rows) __builtin_prefetch(indptr + index[i + kAhead]);
    out[i + 1] = out[i] + indptr[index[i] + 1] - indptr[index[i]];
  }
}

void take_lists(const uint8_t* table, int64_t item, const int64_t* indptr, const int64_t* index,
                int64_t rows, const int64_t* out_indptr, uint8_t* out, int threads) {
  split_edges(out_indptr, rows, item / 8 + 1, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) {
        const int64_t next = index[i + kAhead];
        prefetch(table + indptr[next] * item, (indptr[next + 1] - indptr[next]) * item);
      }
      const int64_t bytes = (out_indptr[i + 1] - out_indptr[i]) * item;
      if (bytes > 0)
        std::memcpy(out + out_indptr[i] * item, table + indptr[index[i]] * item,
                    static_cast<size_t>(bytes));
    }
  });
}

}  // namespace nodebits
