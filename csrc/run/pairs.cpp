// Drivers of pairs.
#include "run/pairs.h"

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kEdges = 2048;  // scores held between the products and the exponential

// Memory of one thread; loops read and write whole rows of it, never beyond.
class Room {
 public:
  explicit Room(int64_t cols) : memory_(static_cast<size_t>(4 * cols + 4)) {
    int32_t* at = memory_.data();
    room_.sums = at;
    room_.gates = at + cols;
    room_.moved = reinterpret_cast<int16_t*>(at + 2 * cols);
    room_.vector = room_.moved + cols;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(at + 3 * cols);
    room_.source = bytes;
    room_.other = bytes + cols;
    room_.value = bytes + 2 * cols;
  }
  const PairRoom& get() const { return room_; }

 private:
  std::vector<int32_t> memory_;
  PairRoom room_{};
};

using PairSum = decltype(Kernels::rectified_sum);

void run_pair_sum(PairSum kernel, const PairSumArgs& a, int64_t rows, int threads) {
  if (a.num_cols == 0) return;
  prefer_huge_pages(a.out, static_cast<size_t>(rows * a.num_cols) * sizeof(float));
  split_edges(a.indptr, rows, a.num_cols, threads, [&](int64_t begin, int64_t end) {
    const Room room(a.num_cols);
    kernel(a, begin, end, room.get());
  });
}

}  // namespace

void run_attention_codes(const ScoreArgs& a, const PairSoftmax& to, int64_t rows, int threads) {
  const Kernels& k = kernels();
  split_edges(a.indptr, rows, a.num_cols + 8 * a.heads, threads, [&](int64_t begin, int64_t end) {
    const Room room(a.num_cols);
    std::vector<float> scores;
    for (int64_t last = begin; begin < end; begin = last) {
      const int64_t first = a.indptr[begin];
      do {
        ++last;
      } while (last < end && a.indptr[last + 1] - first <= kEdges);
      scores.resize(static_cast<size_t>((a.indptr[last] - first) * a.heads));
      k.pair_scores(a, begin, last, room.get(), scores.data());
      SoftmaxArgs s{};
      s.indptr = a.indptr;
      s.first_edge = first;
      s.score_src = scores.data();
      s.codes = to.codes;
      s.row_sum = to.row_sum;
      s.heads = a.heads;
      s.negative_slope = 1.0f;
      s.bits = to.bits;
      k.edge_softmax(s, begin, last);
    }
  });
}

void run_rectified_sum(const PairSumArgs& a, int64_t rows, int threads) {
  run_pair_sum(kernels().rectified_sum, a, rows, threads);
}

void run_gated_sum(const PairSumArgs& a, int64_t rows, int threads) {
  run_pair_sum(kernels().gated_sum, a, rows, threads);
}

}  // namespace nodebits
