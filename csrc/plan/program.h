// A plan as it is executed: steps that were read once, and what they see of a run.
#pragma once

#include <cmath>
#include <cstdint>
#include <deque>
#include <initializer_list>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "plan/plan.h"
#include "run/edge_blocks.h"
#include "run/records.h"

namespace nodebits::plan {

// A value while a plan runs.
struct Value {
  DType dtype = DType::f32;
  bool set = false;
  bool stable = false;  // the structure of a graph, in memory that outlives the run
  int ndim = 0;
  int block = -1;   // of the workspace; -1 where the memory is another's
  int within = -1;  // the value in whose memory it lies, see Frame::alias; -1 for its own
  int64_t shape[kMostDims] = {};
  void* data = nullptr;
  // What was found out about integers: all lie in [0, below); row pointers are good and end at
  // `ends`. -1: nobody has looked.
  mutable int64_t below = -1;
  mutable int64_t ends = -1;
  std::shared_ptr<void> owner;

  int64_t count() const {
    int64_t n = 1;
    for (int i = 0; i < ndim; ++i) n *= shape[i];
    return n;
  }
  template <class T>
  T* as() const {
    return static_cast<T*>(data);
  }
};

std::string shape_text(const Value& v);

template <class T>
constexpr DType dtype_of() {
  if constexpr (std::is_same_v<T, float>) return DType::f32;
  if constexpr (std::is_same_v<T, double>) return DType::f64;
  if constexpr (std::is_same_v<T, uint8_t>) return DType::u8;
  if constexpr (std::is_same_v<T, int32_t>) return DType::i32;
  if constexpr (std::is_same_v<T, int64_t>) return DType::i64;
  if constexpr (std::is_same_v<T, bool>) return DType::b8;
}

// Handles of values, as records take them.
struct Ref {
  const Value* value = nullptr;
};
struct OutRef {
  Value* value = nullptr;
};

// Throws ShapeError.
[[noreturn]] void wrong_array(const Value& v, const char* name, DType dtype,
                              std::initializer_list<int64_t> shape);
[[noreturn]] void too_few_dims(const Value& v, const char* name);

// Arguments of steps.
struct In {
  int value = -1;
  explicit operator bool() const { return value >= 0; }
};
// An integer: a constant, a length of a value (axis >= 0), or what a value holds (axis -1), plus a
// constant.
struct Int {
  int64_t plus = 0;
  int value = -1;
  int axis = 0;
};
// A number: a constant, or an integer as above.
struct Number {
  double constant = 0.0;
  Int integer;
};
// A number, or the name of an operator on those before it.
struct Term {
  std::string op;
  Number number;
};

class Frame;

struct Step {
  virtual ~Step() = default;
  virtual void run(Frame& f) const = 0;

  std::string op;
  int number = 0;
  std::vector<int> outs;
  std::vector<int> ins;     // every value that an argument names
  std::vector<Int> sizes;   // every integer that depends on a value
  std::vector<int> dies;    // values whose memory nobody needs after this step
  std::vector<int> facts;   // of `ins`, those whose contents it reads and no constants
  bool graph_only = false;  // what it makes depends on the structure of a graph alone
  bool entrywise = false;   // as its operation
  bool by_rows = false;     // a row of each result follows from rows of what has as many
  bool refuses = false;     // values that it looks at
};
using StepPtr = std::unique_ptr<Step>;

template <class F>
struct StepOf final : Step {
  explicit StepOf(F f) : function(std::move(f)) {}
  void run(Frame& f) const override { function(f); }
  F function;
};

template <class F>
StepPtr step(F f) {
  return std::make_unique<StepOf<F>>(std::move(f));
}

struct Input {
  std::string name;
  int value = -1;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // -1: any length
  std::vector<int> graph;      // values of indptr, indices, perm; or none
};

// What the rows of an input are, as far as cutting a run by graphs is concerned.
enum class Role : uint8_t { whole, rows, edge_list, edges };

struct Parts {
  int batch = -1;  // value of the graph of every node; -1: the run is not to be cut
  bool by_node = false;
  std::vector<Role> roles;  // of the inputs
  int edge_list = -1;       // which input
};

struct Program {
  std::vector<Input> inputs;
  std::vector<StepPtr> steps;
  std::vector<Value> values;  // constants are set
  std::vector<int> root;      // whose memory a value lies in: itself, as a rule
  std::vector<int> input_of;  // which input a value is; -1
  std::vector<bool> constant;
  std::vector<bool> wanted;     // by a step, or as an output
  std::vector<int> strips;      // see plan/strips.h
  std::vector<bool> structure;  // part of the structure of a graph, whatever the features
  std::vector<int> outputs;
  std::shared_ptr<Workspaces> workspaces;
  int64_t widest = 1;  // outputs of the widest product
  uint64_t id = 0;     // tells this plan from all others of the process
  Parts parts;

  // How an error calls a value.
  std::string name_of(int value) const;
};

// What a step sees while it runs.
class Frame {
 public:
  Frame(Workspace& workspace, const Program& program, Value* values)
      : program(program), workspace_(workspace), values_(values) {}

  const Program& program;
  int threads = 1;
  Kept* kept = nullptr;

  const Value& operator[](In in) const { return values_[in.value]; }
  Ref ref(In in) const { return {values_ + in.value}; }
  // Whether anything reads a result.
  bool wanted(int out) const { return program.wanted[static_cast<size_t>(out)]; }
  std::optional<Ref> optional(In in) const {
    return in ? std::optional<Ref>(ref(in)) : std::nullopt;
  }
  int64_t at(const Int& i) const;
  double at(const Number& n) const {
    return n.integer.value < 0 ? n.constant : static_cast<double>(at(n.integer));
  }

  // A fresh array for a result.
  Value& make(int out, DType dtype, std::initializer_list<int64_t> shape) {
    return make(out, dtype, static_cast<int>(shape.size()), shape.begin());
  }
  Value& make(int out, DType dtype, int ndim, const int64_t* shape);
  // A result that lies where `of` lies (see Reader::alias).
  Value& alias(int out, In of, int ndim, const int64_t* shape);
  // Edge blocks for a sum over this adjacency, where they are kept and pay.
  EdgeBlocks blocks(In indptr, const SpmmArgs& a, int64_t rows, int64_t sources);
  // Memory until the step ends, 64-byte aligned.
  void* scratch(size_t bytes);
  template <class T>
  T* scratch(int64_t count) {
    return static_cast<T*>(scratch(static_cast<size_t>(count) * sizeof(T)));
  }

  // float32, flat, of that length; one value is repeated.
  Ref flat(In in, const char* name, int64_t length);
  // float32 [rows, heads], expanded over the heads.
  Ref by_head(In in, const char* name, int64_t rows, int64_t heads);

  // float32 [rows, cols] without memory, until the step ends.
  Value& unmade(int64_t rows, int64_t cols);

  // Refuse integers outside of [0, limit): int32 or int64, looked at once.
  void check_below(In in, int64_t limit, const char* name, const char* what) const;
  // Refuses what is no row pointers of that many edges.
  void check_rows(In indptr, int64_t edges) const;
  // Checks dtype and dimensions; throws ShapeError.
  const Value& expect(In in, const char* name, DType dtype, int ndim) const;
  // The step is over: its temporary values are free.
  void end() { used_ = 0; }

 private:
  Value& temporary();

  Workspace& workspace_;
  Value* values_;
  std::deque<Value> temporaries_;
  size_t used_ = 0;
};

// Reads the arguments of one step, in order.
struct Arg;
class Reader {
 public:
  Reader(Program& program, const std::string& op, int number, const std::vector<Arg>& args,
         const std::vector<int>& outs)
      : program(program), op_(op), number_(number), args_(&args), outs_(&outs) {}

  Program& program;

  In value();
  In optional();  // null, or nothing where the arguments end
  bool flag();
  int whole();  // a constant integer
  int64_t long_whole();
  int bits();
  Int integer();
  Int integer_or(int64_t otherwise);  // where null stands
  Number number();
  std::string text();
  std::vector<In> values();
  std::vector<In> optionals();
  std::vector<int64_t> wholes();
  std::vector<Int> integers();
  std::vector<double> numbers();
  std::vector<Term> terms();
  std::vector<bool> flags();
  // Whether the next argument is a number rather than a value.
  bool at_number() const;
  bool at_null() const;
  bool at_end() const;
  bool at_list() const;

  int out();  // the next result
  int outs_left() const { return static_cast<int>(outs_->size() - out_); }
  // Says that the result `out` lies in the memory of `of`.
  void alias(int out, In of);
  // The value of a constant; null of others.
  const Value* constant(In in) const;
  bool constant_or_null(In in) const { return !in || constant(in) != nullptr; }
  [[noreturn]] void fail(const std::string& what) const;
  void end() const;
  const std::vector<int>& named() const { return named_; }
  const std::vector<Int>& sizes() const { return sizes_; }

 private:
  const Arg& next();
  template <class F>
  void each(const F& f);
  In named(const Arg& a);
  Int integer_of(const Arg& a);

  std::string op_;
  int number_;
  const std::vector<Arg>* args_;
  const std::vector<int>* outs_;
  size_t at_ = 0;
  size_t out_ = 0;
  std::vector<int> named_;
  std::vector<Int> sizes_;
};

// How a step of a name is made.
struct Operation {
  const char* name;
  StepPtr (*make)(Reader& r);
  bool of_graph = false;   // graph_only where its values are
  bool entrywise = false;  // entry i of its result follows from entries i of its operands alone
  bool by_rows = false;    // as in Step
};

// Null where there is none of this name.
const Operation* find_operation(std::string_view name);

// One list per file.
using Operations = std::vector<Operation>;
Operations fused_operations();
Operations product_operations();
Operations reduce_operations();
Operations pair_operations();
Operations gate_operations();
Operations outer_operations();
Operations row_operations();
Operations feature_operations();
Operations graph_operations();
Operations relation_operations();
Operations edge_operations();
Operations distinct_operations();
Operations pointwise_operations();
Operations shape_operations();
Operations segment_operations();
Operations expect_operations();
Operations approximate_operations();
Operations bucketed_operations();
Operations block_operations();
Operations width_operations();

}  // namespace nodebits::plan

namespace nodebits {

template <>
struct Access<plan::Ref> {
  template <class T>
  static const T* data(const plan::Ref& r, const char* name, std::initializer_list<int64_t> shape) {
    const plan::Value& v = *r.value;
    bool fits = v.dtype == plan::dtype_of<T>() && v.ndim == static_cast<int>(shape.size());
    int i = 0;
    for (int64_t n : shape) fits &= v.shape[i++] == n;
    if (!fits) plan::wrong_array(v, name, plan::dtype_of<T>(), shape);
    return static_cast<const T*>(v.data);
  }
  static int64_t size(const plan::Ref& r, int axis, const char* name) {
    if (axis >= r.value->ndim) plan::too_few_dims(*r.value, name);
    return r.value->shape[axis];
  }
};

template <>
struct Access<plan::OutRef> {
  template <class T>
  static T* data(const plan::OutRef& r, const char* name, std::initializer_list<int64_t> shape) {
    return const_cast<T*>(Access<plan::Ref>::data<T>({r.value}, name, shape));
  }
};

}  // namespace nodebits
