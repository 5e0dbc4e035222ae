// The values of one run, and the memory that they lie in.
#pragma once

#include <atomic>
#include <functional>
#include <memory>
#include <mutex>
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
  explicit Workspace(const Program& program);
  void set(int value, const Array& array);
  void keep_with(Kept* kept) { frame_.kept = kept; }
  void stop_with(const std::atomic<bool>* flag) { stop_ = flag; }
  void pause_with(const std::function<void()>* pause) { pause_ = pause; }
  void steps(int first, int last, int threads);
  Array get(int value);
  const Value& value(int value) const { return values_[static_cast<size_t>(value)]; }
  // Memory of this workspace for an input.
  void* room(int value, DType dtype, std::initializer_list<int64_t> shape);
  void clear();

  // Memory for a result: that of an operand which dies in this step, if the step works entry by
  // entry, or a block.
  void* fresh(Value& v, size_t bytes);
  void* scratch(size_t bytes);

 private:
  // Steps that run on some rows at a time, plan/strips.cpp.
  struct Strip;
  struct Stopped;
  bool begin(Strip* s) const;
  bool probe(Strip* s);
  void place(const Strip& s, int out, const Value& first);
  // Takes rows of what the steps read.
  void lend(const Workspace& from, const Strip& s, int64_t begin, int64_t end);
  // Returns the step after those that it ran; `first` where it ran none.
  int strip(int first, int last);

  void run(const Step& step);
  void run_alone(const Step& step);  // may write over an operand
  void end_step();
  void keep(const Step& step, const std::vector<int64_t>& key);
  void release(const Step& step);
  void release(int value);

  const Program& program_;
  const Step* running_ = nullptr;  // such a step, while it runs
  std::vector<Value> values_;
  Blocks blocks_;
  std::vector<int> scratch_;
  Frame frame_;
  const std::atomic<bool>* stop_ = nullptr;
  const std::function<void()>* pause_ = nullptr;
  int cursor_ = 0;  // the first step that is not done with
};

// Workspaces of one program that nobody uses at the moment.
class Workspaces {
 public:
  std::unique_ptr<Workspace> take(const Program& program) {
    const std::lock_guard<std::mutex> guard(lock_);
    if (idle_.empty()) return std::make_unique<Workspace>(program);
    std::unique_ptr<Workspace> one = std::move(idle_.back());
    idle_.pop_back();
    return one;
  }
  // Forgets what it holds.
  void give_back(std::unique_ptr<Workspace> one) {
    one->clear();
    const std::lock_guard<std::mutex> guard(lock_);
    idle_.push_back(std::move(one));
  }

 private:
  std::mutex lock_;
  std::vector<std::unique_ptr<Workspace>> idle_;
};

// One of them for as long as this lives.
class Borrowed {
 public:
  explicit Borrowed(const Program& program)
      : from_(*program.workspaces), one_(from_.take(program)) {}
  ~Borrowed() { from_.give_back(std::move(one_)); }
  Borrowed(const Borrowed&) = delete;
  Borrowed& operator=(const Borrowed&) = delete;
  Workspace* operator->() const { return one_.get(); }

 private:
  Workspaces& from_;
  std::unique_ptr<Workspace> one_;
};

}  // namespace nodebits::plan
