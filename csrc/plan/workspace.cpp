// A block that somebody outside still holds is not used again: it is left to them.
// Steps that work entry by entry write over an operand that nobody reads later: a chain of them
// takes the memory of one value, whose pages are there.
#include "plan/workspace.h"

#include <algorithm>
#include <cstring>
#include <new>

#include "plan/kept.h"
#include "run/memory.h"
#include "run/pool.h"

namespace nodebits::plan {
namespace {

constexpr size_t kAlign = 64;
constexpr size_t kReadableTail = 64;  // kernels read whole vectors
constexpr size_t kMostKept = size_t{64} << 20;

std::shared_ptr<void> aligned(size_t bytes) {
  void* memory = ::operator new(bytes, std::align_val_t{kAlign});
  prefer_huge_pages(memory, bytes);
  return {memory, [](void* p) { ::operator delete(p, std::align_val_t{kAlign}); }};
}

// Sizes in eight steps per doubling, so that results of about the same size share blocks.
size_t rounded(size_t bytes) {
  size_t step = kAlign;
  while (step * 16 < bytes) step *= 2;
  return (bytes + step - 1) / step * step;
}

}  // namespace

int Blocks::take(size_t bytes) {
  bytes = rounded(std::max<size_t>(bytes, 1) + kReadableTail);
  int best = -1, empty = -1;
  for (size_t i = 0; i < blocks_.size(); ++i) {
    const Block& b = blocks_[i];
    if (b.memory == nullptr) {
      empty = static_cast<int>(i);
    } else if (!b.used && b.bytes >= bytes && b.bytes / 4 <= bytes &&
               (best < 0 || b.bytes < blocks_[static_cast<size_t>(best)].bytes)) {
      best = static_cast<int>(i);
    }
  }
  if (best < 0) {
    std::shared_ptr<void> memory = aligned(bytes);
    if (empty < 0) {
      blocks_.emplace_back();
      empty = static_cast<int>(blocks_.size()) - 1;
    }
    best = empty;
    blocks_[static_cast<size_t>(best)] = {std::move(memory), bytes, false};
  }
  blocks_[static_cast<size_t>(best)].used = true;
  return best;
}

void Blocks::give_back(int block) {
  Block& b = blocks_[static_cast<size_t>(block)];
  b.used = false;
  if (b.memory.use_count() > 1) b = {};
}

void Blocks::trim(size_t most) {
  size_t all = 0;
  for (const Block& b : blocks_) all += b.bytes;
  if (all <= most) return;
  for (Block& b : blocks_) {
    if (!b.used) b = {};
  }
}

Workspace::Workspace(const Program& program)
    : program_(program), values_(program_.values), frame_(*this, program_, values_.data()) {}

void Workspace::set(int value, const Array& array) {
  if (value < 0 || value >= static_cast<int>(values_.size()) ||
      program_.constant[static_cast<size_t>(value)])
    throw PlanError("ShapeError", "value " + std::to_string(value) + " of the plan cannot be set");
  if (array.ndim < 0 || array.ndim > kMostDims)
    throw PlanError("ShapeError", program_.name_of(value) + " has " + std::to_string(array.ndim) +
                                      " dimensions: at most " + std::to_string(kMostDims));
  release(value);
  Value& v = values_[static_cast<size_t>(value)];
  v = {};
  v.dtype = array.dtype;
  v.ndim = array.ndim;
  std::copy_n(array.shape, array.ndim, v.shape);
  v.data = const_cast<void*>(array.data);
  v.owner = array.owner;
  const int which = program_.input_of[static_cast<size_t>(value)];
  if (which >= 0) {
    const Input& input = program_.inputs[static_cast<size_t>(which)];
    bool fits = v.dtype == input.dtype && v.ndim == static_cast<int>(input.shape.size());
    std::string expected;
    for (size_t i = 0; i < input.shape.size(); ++i) {
      fits = fits && (input.shape[i] < 0 || input.shape[i] == v.shape[i]);
      expected += (i > 0 ? ", " : "") + (input.shape[i] < 0 ? "*" : std::to_string(input.shape[i]));
    }
    if (!fits)
      throw PlanError("ShapeError", program_.name_of(value) + " is " + name_of(v.dtype) + " " +
                                        shape_text(v) + ": the model was packed for " +
                                        name_of(input.dtype) + " [" + expected + "]");
  }
  const int64_t size = bytes_of(v.dtype);
  for (int i = 0; i < v.ndim; ++i) {
    if (v.shape[i] < 0)
      throw PlanError("ShapeError", program_.name_of(value) + " has a negative length");
  }
  if (v.count() > 0 && (v.data == nullptr ||
                        reinterpret_cast<uintptr_t>(v.data) % static_cast<uintptr_t>(size) != 0))
    throw PlanError("ShapeError", program_.name_of(value) +
                                      " starts at an address that is no multiple of " +
                                      std::to_string(size) + ": pass a copy");
  v.set = true;
  v.stable = program_.structure[static_cast<size_t>(value)];
}

void Workspace::steps(int first, int last, int threads) {
  const int count = static_cast<int>(program_.steps.size());
  if (first < 0 || last > count || first > last)
    throw PlanError("ShapeError", "steps " + std::to_string(first) + " to " + std::to_string(last) +
                                      " are no range of " + std::to_string(count));
  frame_.threads = std::max(1, threads);
  for (; cursor_ < first; ++cursor_) release(*program_.steps[static_cast<size_t>(cursor_)]);
  for (int i = first; i < last; ++i) {
    const int end = std::min(program_.strips[static_cast<size_t>(i)], last);
    if (end > i + 1) {
      const int after = strip(i, end);
      if (after > i) {
        i = after - 1;
        continue;
      }
    }
    const Step& step = *program_.steps[static_cast<size_t>(i)];
    run_alone(step);
    cursor_ = std::max(cursor_, i + 1);
    release(step);
  }
}

void Workspace::run(const Step& step) {
  if (stop_ != nullptr && stop_->load(std::memory_order_relaxed))
    throw PlanError("KeyboardInterrupt", "the run was stopped");
  if (pause_ != nullptr) (*pause_)();
  bool made = !step.outs.empty();
  for (int out : step.outs) made = made && values_[static_cast<size_t>(out)].set;
  if (made) return;
  for (int in : step.ins) {
    if (!values_[static_cast<size_t>(in)].set) {
      const int which = program_.input_of[static_cast<size_t>(in)];
      throw PlanError("ShapeError", which >= 0 ? "input " + program_.name_of(in) + " was not given"
                                               : "step " + std::to_string(step.number) + " (" +
                                                     step.op + ") reads " + program_.name_of(in) +
                                                     ", which no step has made");
    }
  }
  const auto fail = [&](const char* kind, const char* what) {
    throw PlanError(kind, "step " + std::to_string(step.number) + " (" + step.op + "): " + what);
  };
  bool keep = frame_.kept != nullptr && step.graph_only;
  for (int in : step.facts) keep = keep && values_[static_cast<size_t>(in)].stable;
  std::vector<int64_t> key;
  if (keep) {
    for (const Int& size : step.sizes) key.push_back(frame_.at(size));
    if (frame_.kept->recall(program_.id, step.number, key, values_.data(), step.outs)) return;
  }
  try {
    step.run(frame_);
  } catch (const ShapeError& e) {
    fail("ShapeError", e.what());
  } catch (const GraphError& e) {
    fail("GraphError", e.what());
  } catch (const CodingError& e) {
    fail("CodingError", e.what());
  }
  end_step();
  if (keep) this->keep(step, key);
}

void Workspace::run_alone(const Step& step) {
  running_ = step.entrywise ? &step : nullptr;
  run(step);
  running_ = nullptr;
}

void Workspace::end_step() {
  while (!scratch_.empty()) {
    blocks_.give_back(scratch_.back());
    scratch_.pop_back();
  }
  frame_.end();
}

// Hands the results of a step to the graph's store, which keeps their memory.
void Workspace::keep(const Step& step, const std::vector<int64_t>& key) {
  std::vector<Value> results;
  for (int out : step.outs) {
    Value& v = values_[static_cast<size_t>(out)];
    v.owner = blocks_.owner(v.block);
    blocks_.give_back(v.block);
    v.block = -1;
    v.stable = true;
    results.push_back(v);
  }
  frame_.kept->keep(program_.id, step.number, key, std::move(results));
}

void Workspace::release(const Step& step) {
  for (int value : step.dies) release(value);
}

void Workspace::release(int value) {
  Value& v = values_[static_cast<size_t>(value)];
  if (v.block >= 0) blocks_.give_back(v.block);
  v.block = -1;
  v.set = false;
  v.data = nullptr;
  if (v.owner != nullptr) v.owner.reset();
}

Array Workspace::get(int value) {
  if (value < 0 || value >= static_cast<int>(values_.size()) ||
      !values_[static_cast<size_t>(value)].set)
    throw PlanError("ShapeError",
                    "value " + std::to_string(value) + " of the plan has not been made");
  const Value& v = values_[static_cast<size_t>(value)];
  Array made;
  made.dtype = v.dtype;
  made.ndim = v.ndim;
  std::copy_n(v.shape, v.ndim, made.shape);
  made.data = v.data;
  const Value& root = v.within < 0 ? v : values_[static_cast<size_t>(v.within)];
  made.owner = root.block >= 0 ? blocks_.owner(root.block) : root.owner;
  if (made.owner == nullptr || program_.constant[static_cast<size_t>(value)]) {
    // The memory is the caller's, or a constant that nobody may write to.
    const size_t bytes = static_cast<size_t>(v.count() * bytes_of(v.dtype));
    made.owner = aligned(rounded(bytes + 1));
    if (bytes > 0) std::memcpy(made.owner.get(), v.data, bytes);
    made.data = made.owner.get();
  }
  return made;
}

void Workspace::clear() {
  for (size_t i = 0; i < values_.size(); ++i) {
    if (!program_.constant[i] && values_[i].set) release(static_cast<int>(i));
  }
  end_step();
  running_ = nullptr;
  blocks_.trim(kMostKept);
  cursor_ = 0;
  frame_.kept = nullptr;
  pause_ = nullptr;
}

void* Workspace::room(int value, DType dtype, std::initializer_list<int64_t> shape) {
  release(value);
  return frame_.make(value, dtype, shape).data;
}

void* Workspace::fresh(Value& v, size_t bytes) {
  // An operand of as many entries has them in the same places, whatever the other one is.
  for (size_t i = 0; running_ != nullptr && i < running_->dies.size(); ++i) {
    Value& operand = values_[static_cast<size_t>(running_->dies[i])];
    const bool ours = operand.block >= 0 && blocks_.owner(operand.block).use_count() == 1;
    if (!ours || operand.dtype != v.dtype || operand.count() != v.count()) continue;
    v.block = operand.block;
    operand.block = -1;
    return blocks_.memory(v.block);
  }
  v.block = blocks_.take(bytes);
  return blocks_.memory(v.block);
}

void* Workspace::scratch(size_t bytes) {
  const int block = blocks_.take(bytes);
  scratch_.push_back(block);
  return blocks_.memory(block);
}

}  // namespace nodebits::plan
