// What is kept with a graph between runs.
#pragma once

#include <list>
#include <memory>
#include <mutex>
#include <vector>

#include "plan/program.h"
#include "run/edge_blocks.h"
#include "run/tiles.h"

namespace nodebits::plan {

class Kept {
 public:
  // The edges of a graph whose arrays stay where they are, regrouped; empty where that does not
  // pay. Made at the first call.
  EdgeBlocks blocks(const SpmmArgs& a, int64_t rows, int64_t sources, int threads);

  // Results of a step of a plan that depend on the graph and the integers in `key`.
  bool recall(uint64_t plan, int step, const std::vector<int64_t>& key, Value* values,
              const std::vector<int>& outs);
  void keep(uint64_t plan, int step, const std::vector<int64_t>& key, std::vector<Value> results);

 private:
  struct Blocks {
    const int64_t* indptr;
    const int32_t* indices;
    int64_t group_rows;
    int64_t block_rows;
    std::unique_ptr<Buffer> memory;
    EdgeBlocks view;
  };
  struct Results {
    uint64_t plan;
    int step;
    std::vector<int64_t> key;
    std::vector<Value> values;
  };
  std::mutex lock_;
  std::list<Blocks> blocks_;
  std::list<Results> results_;
};

}  // namespace nodebits::plan
