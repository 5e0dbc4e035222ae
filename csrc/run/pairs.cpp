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
  explicit Room(int64_t cols)
      : sums_(static_cast<size_t>(2 * cols)),
        words_(static_cast<size_t>(4 * cols)),
        bytes_(static_cast<size_t>(5 * cols)) {
    uint8_t* bytes = bytes_.data();
    for (uint8_t** row : {&room_.source, &room_.target, &room_.edge, &room_.value, &room_.gate}) {
      *row = bytes;
      bytes += cols;
    }
    int16_t* words = words_.data();
    for (int16_t** row : {&room_.moved, &room_.joined, &room_.joined_value, &room_.vector}) {
      *row = words;
      words += cols;
    }
    room_.sums = sums_.data();
    room_.gates = room_.sums + cols;
  }
  const PairRoom& get() const { return room_; }

 private:
  std::vector<int32_t> sums_;
  std::vector<int16_t> words_;
  std::vector<uint8_t> bytes_;
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

void run_pair_scores(const ScoreArgs& a, float* scores, int64_t rows, int threads) {
  const Kernels& k = kernels();
  split_edges(a.indptr, rows, a.num_cols, threads, [&](int64_t begin, int64_t end) {
    const Room room(a.num_cols);
    k.pair_scores(a, begin, end, room.get(), scores + a.indptr[begin] * a.heads);
  });
}

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

void run_rectified_softmax(const PairSumArgs& a, int64_t rows, int threads) {
  run_pair_sum(kernels().rectified_softmax, a, rows, threads);
}

void run_gated_sum(const PairSumArgs& a, int64_t rows, int threads) {
  run_pair_sum(kernels().gated_sum, a, rows, threads);
}

}  // namespace nodebits
