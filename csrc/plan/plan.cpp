// Reading: every value is made once and before it is used, and dies after its last use.
#include "plan/plan.h"

#include <algorithm>
#include <atomic>
#include <unordered_map>

#include "plan/arguments.h"
#include "plan/json.h"
#include "plan/packing.h"
#include "plan/strips.h"
#include "plan/workspace.h"

namespace nodebits {

int64_t bytes_of(DType dtype) {
  constexpr int64_t kBytes[] = {4, 8, 1, 4, 8, 1};
  return kBytes[static_cast<size_t>(dtype)];
}

const char* name_of(DType dtype) {
  constexpr const char* kNames[] = {"float32", "float64", "uint8", "int32", "int64", "bool"};
  return kNames[static_cast<size_t>(dtype)];
}

namespace plan {
namespace {

constexpr int kVersion = 1;
constexpr int kMostValues = 1 << 20;

using Kind = Json::Kind;

[[noreturn]] void fail(const std::string& what) { throw PlanError("FileFormatError", what); }

const Json& field(const Json& of, const char* name, Kind kind, const std::string& where) {
  const Json* found = of.find(name);
  if (found == nullptr || !found->is(kind)) fail(where + " has no \"" + name + "\" of its kind");
  return *found;
}

int value_number(const Json& json, const std::string& where) {
  if (!json.is(Kind::integer) || json.integer < 0 || json.integer >= kMostValues)
    fail(where + " must be the number of a value, 0 to " + std::to_string(kMostValues - 1));
  return static_cast<int>(json.integer);
}

DType dtype_named(const std::string& name, const std::string& where) {
  for (int i = 0; i <= static_cast<int>(DType::b8); ++i) {
    if (name == name_of(static_cast<DType>(i))) return static_cast<DType>(i);
  }
  fail(where + " has the dtype \"" + name + "\", which no value has");
}

class ProgramReader {
 public:
  // `most` values are more than a text of that length makes.
  ProgramReader(Program* p, const std::function<Array(std::string_view)>& constant, size_t most)
      : p_(*p), constant_(constant), most_(most) {}

  void read(const Json& json) {
    if (!json.is(Kind::object)) fail("the plan is no JSON object");
    const Json& version = field(json, "version", Kind::integer, "the plan");
    if (version.integer != kVersion)
      fail("the plan has version " + std::to_string(version.integer) + ", this build reads " +
           std::to_string(kVersion) + ": update nodebits, or pack the model again");
    for (const Json& input : field(json, "inputs", Kind::list, "the plan").items) read_input(input);
    for (const auto& [number, name] : field(json, "constants", Kind::object, "the plan").fields)
      read_constant(number, name);
    int number = 0;
    for (const Json& step : field(json, "steps", Kind::list, "the plan").items)
      read_step(step, number++);
    const Json* outputs = json.find("outputs");
    if (outputs == nullptr) fail("the plan has no \"outputs\"");
    read_outputs(*outputs);
    if (const Json* parts = json.find("parts"); parts != nullptr && !parts->is(Kind::null))
      read_parts(*parts);
    check_graphs();
    find_deaths();
    join_packing(p_);
    p_.strips = find_strips(p_);
  }

 private:
  // Room for a value that is made here.
  int define(int value, const std::string& where) {
    grow(value);
    if (defined_[static_cast<size_t>(value)])
      fail(where + ": value " + std::to_string(value) + " is made twice");
    defined_[static_cast<size_t>(value)] = true;
    return value;
  }

  void grow(int value) {
    const size_t n = static_cast<size_t>(value) + 1;
    if (n <= p_.values.size()) return;
    if (n > most_) fail("value " + std::to_string(value) + " is one of too many for this plan");
    for (size_t i = p_.root.size(); i < n; ++i) p_.root.push_back(static_cast<int>(i));
    p_.values.resize(n);
    p_.input_of.resize(n, -1);
    p_.constant.resize(n, false);
    p_.structure.resize(n, false);
    defined_.resize(n, false);
  }

  void need(int value, const std::string& where) const {
    if (value < 0 || static_cast<size_t>(value) >= defined_.size() ||
        !defined_[static_cast<size_t>(value)])
      fail(where + " reads value " + std::to_string(value) + ", which nothing before it makes");
  }

  void read_input(const Json& json) {
    const std::string where = "input " + std::to_string(p_.inputs.size()) + " of the plan";
    if (!json.is(Kind::object)) fail(where + " is no object");
    Input made;
    made.name = field(json, "name", Kind::text, where).text;
    made.value = define(value_number(field(json, "value", Kind::integer, where), where), where);
    made.dtype = dtype_named(field(json, "dtype", Kind::text, where).text, where);
    for (const Json& n : field(json, "shape", Kind::list, where).items) {
      if (!n.is(Kind::null) && (!n.is(Kind::integer) || n.integer < 0))
        fail(where + " has a shape of other things than null and lengths");
      made.shape.push_back(n.is(Kind::null) ? -1 : n.integer);
    }
    if (made.shape.size() > kMostDims) fail(where + " has too many dimensions");
    if (const Json* graph = json.find("graph"); graph != nullptr && !graph->is(Kind::null)) {
      for (const char* part : {"indptr", "indices", "perm"}) {
        const Json* number = graph->find(part);
        if (number == nullptr || number->is(Kind::null)) continue;
        const int value = value_number(*number, where);
        grow(value);
        p_.structure[static_cast<size_t>(value)] = true;
        made.graph.push_back(value);
      }
      // Weights that come with the graph belong to it, as those of a matrix do.
      if (const Json* number = graph->find("weight"); number != nullptr) {
        const int value = value_number(*number, where);
        grow(value);
        p_.structure[static_cast<size_t>(value)] = true;
      }
    }
    p_.input_of[static_cast<size_t>(made.value)] = static_cast<int>(p_.inputs.size());
    p_.inputs.push_back(std::move(made));
  }

  void read_constant(const std::string& number, const Json& name) {
    const std::string where = "constant \"" + number + "\" of the plan";
    int value = -1;
    if (number.empty() || number.size() > 7) fail(where + " is no number of a value");
    for (char c : number) {
      if (c < '0' || c > '9') fail(where + " is no number of a value");
      value = std::max(value, 0) * 10 + (c - '0');
    }
    if (value >= kMostValues) fail(where + " is no number of a value");
    if (!name.is(Kind::text)) fail(where + " has no name");
    define(value, where);
    const Array array = constant_(name.text);
    Value& v = p_.values[static_cast<size_t>(value)];
    v.dtype = array.dtype;
    v.ndim = array.ndim;
    std::copy_n(array.shape, array.ndim, v.shape);
    v.data = const_cast<void*>(array.data);
    v.owner = array.owner;
    v.set = true;
    p_.constant[static_cast<size_t>(value)] = true;
  }

  void read_step(const Json& json, int number) {
    std::string where = "step " + std::to_string(number) + " of the plan";
    if (!json.is(Kind::object)) fail(where + " is no object");
    const std::string op = field(json, "op", Kind::text, where).text;
    where = "step " + std::to_string(number) + " (" + op + ") of the plan";
    std::vector<Arg> args;
    for (const Json& arg : field(json, "args", Kind::list, where).items)
      args.push_back(read_argument(arg, where));
    for (const Arg& arg : args) need_all(arg, where);
    std::vector<int> outs;
    for (const Json& out : field(json, "outs", Kind::list, where).items)
      outs.push_back(define(value_number(out, where), where));
    const Json* approx = json.find("approx");
    const bool python = op == "module" || op == "torch";
    const bool outside = python || (approx != nullptr && approx->is(Kind::boolean) &&
                                    approx->boolean && find_operation(op) == nullptr);
    StepPtr step;
    if (outside) {
      step = outside_step(op, args, number);
    } else {
      const Operation* operation = find_operation(op);
      if (operation == nullptr)
        fail(where + ": this build has no such step; update nodebits, or pack the model again");
      Reader reader(p_, op, number, args, outs);
      step = operation->make(reader);
      reader.end();
      step->ins = reader.named();
      step->sizes = reader.sizes();
      step->entrywise = operation->entrywise;
      step->by_rows = step->by_rows || operation->entrywise || operation->by_rows;
      mark_structure(*operation, step.get(), outs);
    }
    step->op = op;
    step->number = number;
    step->outs = outs;
    p_.steps.push_back(std::move(step));
  }

  // A step that is made elsewhere: its results are set before this executor comes to it.
  StepPtr outside_step(const std::string& op, const std::vector<Arg>& args, int number) {
    const bool named = !args.empty() && args[0].kind == Arg::Kind::text;
    const std::string what =
        "step " + std::to_string(number) +
        (named && op == "module"  ? " is the module " + args[0].text + ", which only Python can run"
         : named && op == "torch" ? " is torch's " + args[0].text + ", which only torch can run"
                                  : " (" + op + ") is made outside of the executor");
    StepPtr made = step([what](Frame&) { throw PlanError("Refused", what); });
    for (const Arg& arg : args) name_all(arg, &made->ins);
    return made;
  }

  static void name_all(const Arg& arg, std::vector<int>* named) {
    if (arg.kind == Arg::Kind::value || arg.kind == Arg::Kind::size)
      named->push_back(arg.integer.value);
    for (const Arg& item : arg.items) name_all(item, named);
  }

  void need_all(const Arg& arg, const std::string& where) const {
    if (arg.kind == Arg::Kind::value || arg.kind == Arg::Kind::size) need(arg.integer.value, where);
    for (const Arg& item : arg.items) need_all(item, where);
  }

  // Of what a step makes of structure alone; lengths of features and constants may come in,
  // contents may not.
  void mark_structure(const Operation& operation, Step* step, const std::vector<int>& outs) {
    if (!operation.of_graph) return;
    for (int in : step->ins) {
      const bool only_size =
          std::any_of(step->sizes.begin(), step->sizes.end(),
                      [in](const Int& i) { return i.value == in && i.axis >= 0; });
      if (only_size || p_.constant[static_cast<size_t>(in)]) continue;
      if (!p_.structure[static_cast<size_t>(in)]) return;
      step->facts.push_back(in);
    }
    if (step->facts.empty()) return;
    step->graph_only = true;
    for (int out : outs) p_.structure[static_cast<size_t>(out)] = true;
  }

  void read_outputs(const Json& json) {
    if (json.is(Kind::list)) {
      for (const Json& item : json.items) read_outputs(item);
      return;
    }
    if (!json.is(Kind::object)) fail("outputs of the plan hold neither a value nor a list");
    if (const Json* value = json.find("value")) {
      const int number = value_number(*value, "an output of the plan");
      need(number, "an output of the plan");
      p_.outputs.push_back(number);
    } else if (const Json* items = json.find("tuple"); items != nullptr && items->is(Kind::list)) {
      read_outputs(*items);
    } else if (const Json* dict = json.find("dict"); dict != nullptr && dict->is(Kind::object)) {
      for (const auto& entry : dict->fields) read_outputs(entry.second);
    } else if (const Json* pairs = json.find("items"); pairs != nullptr && pairs->is(Kind::list)) {
      for (const Json& pair : pairs->items) {
        if (!pair.is(Kind::list) || pair.items.size() != 2)
          fail("outputs of the plan hold items that are no pairs");
        read_outputs(pair.items[1]);
      }
    } else if (json.find("none") == nullptr) {
      fail("outputs of the plan hold neither a value nor a list");
    }
  }

  void read_parts(const Json& json) {
    if (!json.is(Kind::object)) fail("parts of the plan are no object");
    const int batch = value_number(field(json, "batch", Kind::integer, "parts"), "batch of parts");
    if (static_cast<size_t>(batch) >= p_.input_of.size() ||
        p_.input_of[static_cast<size_t>(batch)] < 0)
      fail("batch of the plan's parts is no input");
    const std::string by = field(json, "by", Kind::text, "parts of the plan").text;
    if (by != "graph" && by != "node") fail("parts of the plan are by \"graph\" or \"node\"");
    p_.parts.batch = batch;
    p_.parts.by_node = by == "node";
    find_roles();
  }

  // An input of any length has a row per node, unless a step says that it belongs to edges. Where
  // there are two lists of edges, or an output is no such rows, the run is not cut.
  void find_roles() {
    Parts& parts = p_.parts;
    for (const Input& input : p_.inputs) {
      const bool open = !input.shape.empty() && input.shape[0] < 0;
      parts.roles.push_back(open ? Role::rows : Role::whole);
    }
    for (const StepPtr& step : p_.steps) {
      if ((step->op != "csr" && step->op != "in_order") || step->ins.empty()) continue;
      const int input = p_.input_of[static_cast<size_t>(step->ins[0])];
      if (step->op == "in_order") {
        if (input >= 0) parts.roles[static_cast<size_t>(input)] = Role::edges;
        continue;
      }
      if (input < 0 || (parts.edge_list >= 0 && parts.edge_list != input)) parts.batch = -1;
      parts.edge_list = input;
      if (input >= 0) parts.roles[static_cast<size_t>(input)] = Role::edge_list;
    }
    if (p_.outputs.empty()) parts.batch = -1;
  }

  void check_graphs() const {
    for (const Input& input : p_.inputs) {
      for (int value : input.graph) need(value, "the graph of input " + input.name);
    }
  }

  void find_deaths() {
    std::vector<int> last(p_.values.size(), -1);
    p_.wanted.assign(p_.values.size(), false);
    for (const StepPtr& step : p_.steps) {
      for (int out : step->outs) last[static_cast<size_t>(out)] = step->number;
      for (int in : step->ins) {
        last[static_cast<size_t>(in)] = step->number;
        p_.wanted[static_cast<size_t>(in)] = true;
      }
    }
    constexpr int kNever = INT32_MAX;
    for (int out : p_.outputs) {
      last[static_cast<size_t>(out)] = kNever;
      p_.wanted[static_cast<size_t>(out)] = true;
    }
    for (size_t i = 0; i < last.size(); ++i) {
      int& root = last[static_cast<size_t>(p_.root[i])];
      root = std::max(root, last[i]);
    }
    // A result that may lie elsewhere has memory of its own at times, which others lie in.
    for (size_t i = 0; i < last.size(); ++i) last[i] = last[static_cast<size_t>(p_.root[i])];
    for (size_t i = 0; i < last.size(); ++i) {
      if (last[i] >= 0 && last[i] != kNever && !p_.constant[i])
        p_.steps[static_cast<size_t>(last[i])]->dies.push_back(static_cast<int>(i));
    }
  }

  Program& p_;
  const std::function<Array(std::string_view)>& constant_;
  size_t most_;
  std::vector<bool> defined_;
};

}  // namespace

std::string Program::name_of(int value) const {
  const size_t at = static_cast<size_t>(value);
  if (at < input_of.size() && input_of[at] >= 0)
    return "\"" + inputs[static_cast<size_t>(input_of[at])].name + "\"";
  return "value " + std::to_string(value);
}

const Operation* find_operation(std::string_view name) {
  static const std::unordered_map<std::string_view, Operation> all = [] {
    std::unordered_map<std::string_view, Operation> made;
    for (const Operations& some :
         {fused_operations(),       product_operations(),  reduce_operations(),
          pair_operations(),        gate_operations(),     outer_operations(),
          row_operations(),         feature_operations(),  graph_operations(),
          relation_operations(),    edge_operations(),     pointwise_operations(),
          shape_operations(),       segment_operations(),  expect_operations(),
          approximate_operations(), bucketed_operations(), width_operations(),
          block_operations(),       distinct_operations()}) {
      for (const Operation& o : some) made.emplace(o.name, o);
    }
    return made;
  }();
  const auto found = all.find(name);
  return found == all.end() ? nullptr : &found->second;
}

}  // namespace plan

Plan::Plan() : program_(std::make_unique<plan::Program>()) {
  program_->workspaces = std::make_shared<plan::Workspaces>();
}
Plan::~Plan() = default;

std::shared_ptr<const Plan> Plan::read(
    std::string_view json, const std::function<Array(std::string_view name)>& constant) {
  static std::atomic<uint64_t> next_id{1};
  std::shared_ptr<Plan> made(new Plan);
  made->program_->id = next_id.fetch_add(1);
  plan::ProgramReader(made->program_.get(), constant, std::max<size_t>(4096, json.size()))
      .read(plan::read_json(json));
  return made;
}

const std::vector<int>& Plan::strips() const { return program_->strips; }
int Plan::steps() const { return static_cast<int>(program_->steps.size()); }
const std::vector<int>& Plan::outputs() const { return program_->outputs; }

Run::Run(std::shared_ptr<const Plan> plan)
    : plan_(std::move(plan)), workspace_(std::make_unique<plan::Workspace>(plan_->program())) {}
Run::~Run() = default;
void Run::set(int value, const Array& array) { workspace_->set(value, array); }
void Run::keep_with(GraphStore* store) {
  workspace_->keep_with(store == nullptr ? nullptr : &store->kept());
}
void Run::stop_with(const std::atomic<bool>* flag) { workspace_->stop_with(flag); }
void Run::steps(int first, int last, int threads, const std::function<void()>* pause) {
  workspace_->pause_with(pause);
  try {
    workspace_->steps(first, last, threads);
  } catch (...) {
    workspace_->pause_with(nullptr);
    throw;
  }
  workspace_->pause_with(nullptr);
}
Array Run::get(int value) { return workspace_->get(value); }
void Run::clear() { workspace_->clear(); }

}  // namespace nodebits
