// The values of one run, and the memory that they lie in.
#pragma once

#include <atomic>
#include <memory>
#include <vector>

#include "plan/program.h"

namespace nodebits::plan {

// Memory in blocks of any size, which are used again.
class Blocks {
 public:
  // A block of at least that many bytes.
  int take(size_t bytes);
  void give_back(int block);
  void* memory(int block) const { return blocks_[static_cast<size_t>(block)].memory.get(); }
  const std::shared_ptr<void>& owner(int block) const {
    return blocks_[static_cast<size_t>(block)].memory;
  }
  // Frees unused blocks if all of them take more than `most`.
  void trim(size_t most);

 private:
  struct Block {
    std::shared_ptr<void> memory;
    size_t bytes = 0;
    bool used = false;
  };
  std::vector<Block> blocks_;
};

class Workspace {
 public:
  explicit Workspace(std::shared_ptr<const Plan> plan);

  const Plan& plan() const { return *plan_; }
  void set(int value, const Array& array);
  void keep_with(Kept* kept) { frame_.kept = kept; }
  void stop_with(const std::atomic<bool>* flag) { stop_ = flag; }
  void steps(int first, int last, int threads);
  Array get(int value);
  void clear();

  void* fresh(Value& v, size_t bytes);
  void* scratch(size_t bytes);

 private:
  void run(const Step& step);
  void end_step();
  void keep(const Step& step, const std::vector<int64_t>& key);
  void release(const Step& step);
  void release(int value);

  std::shared_ptr<const Plan> plan_;
  const Program& program_;
  std::vector<Value> values_;
  Blocks blocks_;
  std::vector<int> scratch_;
  Frame frame_;
  const std::atomic<bool>* stop_ = nullptr;
  int cursor_ = 0;  // the first step that is not done with
};

}  // namespace nodebits::plan
