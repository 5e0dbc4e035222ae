// A plan is the forward of a packed model as a list of steps over numbered values, whose sizes are
// only known when it runs. See nodebits/plan/README.md for its JSON. Every step gives the bits of
// the operator, or of torch's function, that has its name.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <memory>
#include <stdexcept>
#include <string>
#include <string_view>
#include <vector>

namespace nodebits {

enum class DType : uint8_t { f32, f64, u8, i32, i64, b8 };

int64_t bytes_of(DType dtype);
const char* name_of(DType dtype);

constexpr int kMostDims = 8;

// A contiguous, row-major array.
struct Array {
  DType dtype = DType::f32;
  int ndim = 0;
  int64_t shape[kMostDims] = {};
  const void* data = nullptr;
  std::shared_ptr<void> owner;  // empty: the caller keeps the memory

  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
};

// `kind` is the name of a class in nodebits/core/errors.py, or "Refused": this plan does not serve
// these inputs, and the module itself may.
struct PlanError : std::runtime_error {
  PlanError(std::string kind_, const std::string& message)
      : std::runtime_error(message), kind(std::move(kind_)) {}
  std::string kind;
};

namespace plan {
struct Program;
class Workspace;
class Workspaces;
class Kept;
}  // namespace plan

class Plan {
 public:
  // `constant` gives the tensor of a name, and throws where there is none.
  // Throws PlanError: "FileFormatError" where the text is no plan.
  static std::shared_ptr<const Plan> read(
      std::string_view json, const std::function<Array(std::string_view name)>& constant);
  ~Plan();

  int steps() const;
  // By step that begins a strip (plan/strips.h), the step after its last one; 0 for others.
  const std::vector<int>& strips() const;
  // Values of the outputs, in the order in which they stand in the JSON.
  const std::vector<int>& outputs() const;
  const plan::Program& program() const { return *program_; }

 private:
  Plan();
  std::unique_ptr<plan::Program> program_;
};

// What is kept with one graph between runs: edge blocks, and what steps make of the graph alone
// where that takes long. Its arrays must be those of one graph for as long as it exists. May be
// used by several runs at once.
class GraphStore {
 public:
  GraphStore();
  ~GraphStore();
  plan::Kept& kept() const { return *kept_; }

 private:
  std::unique_ptr<plan::Kept> kept_;
};

// One workspace. Not shared by threads at the same time; memory is reused by the next run.
class Run {
 public:
  explicit Run(std::shared_ptr<const Plan> plan);
  ~Run();
  Run(const Run&) = delete;
  Run& operator=(const Run&) = delete;

  // Gives an input, a value of its graph, or what a step outside of this executor has made.
  void set(int value, const Array& array);
  // Of the graph whose values are set; null for none.
  void keep_with(GraphStore* store);
  // Looked at between steps: where it is true they end with a PlanError, "KeyboardInterrupt".
  void stop_with(const std::atomic<bool>* flag);
  // Runs steps [first, last); those whose results are all set are left out. `pause` is called
  // between steps on the caller's thread, and may throw.
  void steps(int first, int last, int threads, const std::function<void()>* pause = nullptr);
  // What a value holds; the memory stays as it is for as long as the owner lives.
  Array get(int value);
  // Forgets all values; the workspace stays, up to 64 MiB.
  void clear();

 private:
  std::shared_ptr<const Plan> plan_;
  std::unique_ptr<plan::Workspace> workspace_;
};

// A whole run, in a workspace that the plan keeps. Where the plan says how, and there are many
// small graphs, it is cut into parts of some graphs each, every one on one thread; the bits are the
// same. `given` are pairs of a value and its array; results are those of Plan::outputs. `pause` is
// called between steps on the caller's thread, and may throw.
using Given = std::vector<std::pair<int, Array>>;
std::vector<Array> run_parts(const Plan& plan, const Given& given, int threads,
                             GraphStore* store = nullptr,
                             const std::function<void()>& pause = nullptr);

}  // namespace nodebits
