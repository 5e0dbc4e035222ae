// Lists: a graph has a handful of either.
#include "plan/kept.h"

namespace nodebits {

GraphStore::GraphStore() : kept_(std::make_unique<plan::Kept>()) {}
GraphStore::~GraphStore() = default;

namespace plan {
namespace {

// Beyond this many results the oldest go: a graph that many plans meet, or features of many sizes.
constexpr size_t kMostResults = 256;

}  // namespace

EdgeBlocks Kept::blocks(const SpmmArgs& a, int64_t rows, int64_t sources, int threads) {
  const EdgeBlocks plan =
      plan_edge_blocks(rows, sources, a.num_edges, packed_row_bytes(a.num_cols, a.bits));
  if (plan.block_rows == 0) return {};
  const std::lock_guard<std::mutex> guard(lock_);
  for (const Blocks& b : blocks_) {
    if (b.indptr == a.indptr && b.indices == a.indices && b.group_rows == plan.group_rows &&
        b.block_rows == plan.block_rows)
      return b.view;
  }
  const size_t bytes = edge_blocks_bytes(plan);
  Blocks made{
      a.indptr, a.indices, plan.group_rows, plan.block_rows, std::make_unique<Buffer>(bytes), {}};
  make_edge_blocks(plan, a.indptr, a.indices, made.memory->memory, threads);
  if (!view_edge_blocks(made.memory->memory, bytes, rows, sources, a.num_edges, &made.view))
    return {};
  blocks_.push_back(std::move(made));
  return blocks_.back().view;
}

bool Kept::recall(uint64_t plan, int step, const std::vector<int64_t>& key, Value* values,
                  const std::vector<int>& outs) {
  const std::lock_guard<std::mutex> guard(lock_);
  for (const Results& r : results_) {
    if (r.plan != plan || r.step != step || r.key != key) continue;
    for (size_t i = 0; i < outs.size(); ++i) values[outs[i]] = r.values[i];
    return true;
  }
  return false;
}

void Kept::keep(uint64_t plan, int step, const std::vector<int64_t>& key,
                std::vector<Value> results) {
  const std::lock_guard<std::mutex> guard(lock_);
  if (results_.size() >= kMostResults) results_.pop_front();
  results_.push_back({plan, step, key, std::move(results)});
}

}  // namespace plan
}  // namespace nodebits
