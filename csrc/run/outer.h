// Sums of outer products, and what follows them tile by tile.
#pragma once

#include <optional>
#include <vector>

#include "contract/outer.h"
#include "run/pairs.h"

namespace nodebits {

// The columns of `a` are those of all heads.
void run_fused_outer_sum(const OuterArgs& args, int64_t rows, const FusedArgs& a, int threads);

// Rows [begin, end) of the sums after an epilogue of one factor per row: float32 to `out`.
void run_outer_sum(const OuterArgs& args, const RescaleArgs& epilogue, int64_t begin, int64_t end,
                   float* out, int threads);

// The zero points of columns as the kernels read them.
std::vector<int16_t> doubled_zeros(const int32_t* zero, int64_t num_cols);

// Records as arguments, and what they point to.
class OuterSum {
 public:
  template <class A>
  OuterSum(const EdgesOf<A>& edges, const SourceOf<A>& source, const SourceOf<A>& factors,
           const std::optional<A>& order, const A& zero, const A& factor_zero, bool plain,
           int threads)
      : source_(source, source.num_cols, threads),
        factors_(factors, factors.num_cols, threads),
        zero_(doubled_zeros(bounded(zero, "zero", source.num_cols, 0, 255), source.num_cols)) {
    check_ends(edges, source);
    const int64_t r = edges.rows(), e = edges.count();
    args_.indptr = data<int64_t>(edges.indptr, "indptr", {r + 1});
    args_.indices = data<int32_t>(edges.indices, "indices", {e});
    args_.num_cols = source.num_cols;
    take_source(source.rows(), threads);
    args_.heads = factors.num_cols;
    check(args_.heads > 0, "an edge has at least one factor");
    args_.factors = {factors_.rows(), places_of(order, e, factors.rows())};
    args_.factor_zero = bounded(factor_zero, "factor_zero", args_.heads, 0, 255);
    args_.zero = zero_.data();
    args_.plain = plain;
  }
  const OuterArgs& args() const { return args_; }
  int64_t cols() const { return args_.all_heads() * args_.num_cols; }

 private:
  // As bytes: each row is read several times.
  void take_source(int64_t rows, int threads);

  PlainRows source_, factors_;
  std::unique_ptr<Buffer> wide_;
  std::vector<int16_t> zero_;
  OuterArgs args_{};
};

}  // namespace nodebits
