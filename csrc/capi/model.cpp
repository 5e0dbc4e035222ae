// Models: a file, its plan, and what the plan says of its inputs.
#include <algorithm>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "plan/json.h"
#include "plan/json_reader.h"
#include "plan/program.h"

namespace nodebits {
namespace {

// The step that makes rows of an edge index: its first result, and the sizes as it names them.
struct RowsStep {
  int64_t indptr;
  std::string sources, targets;
};

// Throws where a step is one that only Python runs: better now than in the middle of a forward.
void check_portable(const plan::Json& step, const std::string& name) {
  const plan::Json *op = step.find("op"), *args = step.find("args"), *approx = step.find("approx");
  if (op == nullptr || plan::find_operation(op->text) != nullptr) return;
  std::string what;
  if (op->text == "module" || op->text == "torch") {
    const bool named = args != nullptr && !args->items.empty() && args->items[0].text.size() > 1;
    what = (op->text == "module" ? "its module " : "torch's ") +
           quoted(named ? args->items[0].text.substr(1) : "?");
  } else if (approx != nullptr && approx->boolean) {
    what = "torch's " + quoted(op->text);
  } else {
    return;  // of a newer version, or nonsense: Plan::read says which
  }
  throw PlanError("PlanRefused", name + " needs Python and torch for " + what +
                                     ", which no compiled step computes: run it with nodebits");
}

// A first look at the plan; whether it is one at all is said by Plan::read.
std::vector<RowsStep> look_at(const plan::Json& json, const std::string& name) {
  std::vector<RowsStep> found;
  const plan::Json* steps = json.find("steps");
  if (steps == nullptr) return found;
  for (const plan::Json& step : steps->items) {
    check_portable(step, name);
    const plan::Json *op = step.find("op"), *args = step.find("args"), *outs = step.find("outs");
    const bool complete = op != nullptr && args != nullptr && outs != nullptr;
    if (complete && op->text == "csr" && args->items.size() == 3 && !outs->items.empty()) {
      found.push_back({outs->items[0].integer, args->items[1].text, args->items[2].text});
    }
  }
  return found;
}

std::vector<PackedArgument> packed_arguments(const plan::Json& json) {
  std::vector<PackedArgument> found;
  const plan::Json* arguments = json.find("arguments");
  if (arguments == nullptr) return found;
  for (const plan::Json& one : arguments->items) {
    const plan::Json *role = one.find("role"), *name = one.find("name"), *rows = one.find("value");
    if (role == nullptr || name == nullptr || role->text != "packed") continue;
    found.push_back({name->text, rows == nullptr ? plan::Json() : *rows});
  }
  return found;
}

// "d3.0" where value 3 is an input.
SizeOf size_of(const std::string& text, const std::vector<ModelInput>& inputs) {
  SizeOf found;
  const size_t dot = text.find('.');
  if (text.empty() || text[0] != 'd' || dot == std::string::npos) return found;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (text.substr(1, dot - 1) == std::to_string(inputs[i].value)) {
      found.input = static_cast<int>(i);
      found.axis = text[dot + 1] - '0';  // the plan was read: it is a digit
    }
  }
  return found;
}

bool read_elsewhere(const plan::Program& program, const ModelInput& input) {
  for (const plan::StepPtr& step : program.steps) {
    const auto& ins = step->ins;
    if (std::find(ins.begin(), ins.end(), input.value) == ins.end()) continue;
    const bool makes_rows = std::all_of(step->outs.begin(), step->outs.end(), [&](int out) {
      return std::find(input.graph.begin(), input.graph.end(), out) != input.graph.end();
    });
    if (!makes_rows) return true;
  }
  const auto& outputs = program.outputs;
  return std::find(outputs.begin(), outputs.end(), input.value) != outputs.end();
}

// What a file says of why it has no plan, and what to do where it does not.
std::string why_none(std::string_view text) {
  constexpr size_t longest = 600;
  std::string said;
  if (!text.empty() && text.front() == '"') said = JsonReader(text).string();
  if (said.empty()) return ": load it with nodebits, call predict once and save it again";
  said.resize(std::min(said.size(), longest));
  for (char& c : said)
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  return ", since " + said + ". nodebits runs the model with torch";
}

}  // namespace

Model::Model(Bytes bytes, const std::string& name, unsigned flags)
    : file(std::move(bytes), name, kModelFile, (flags & NB_SKIP_CHECKSUMS) == 0) {
  const std::string_view text = file.entry("plan");
  if (text.empty() || text == "null") {
    throw PlanError("ConfigError", name + " has no plan, which runs without torch need" +
                                       why_none(file.entry("no_plan")));
  }
  const plan::Json json = plan::read_json(text);
  const std::vector<RowsStep> steps = look_at(json, name);
  packed = packed_arguments(json);
  plan = Plan::read(text, [this](std::string_view tensor) { return file.tensor(tensor); });
  const plan::Program& program = plan->program();
  for (const plan::Input& input : program.inputs) {
    inputs.push_back(
        {input.name, input.value, input.dtype, input.shape, input.graph, {}, {}, false});
    if (!input.graph.empty()) inputs.back().read_as_edges = read_elsewhere(program, inputs.back());
  }
  for (ModelInput& input : inputs) {
    for (const RowsStep& step : steps) {
      if (input.graph.empty() || input.graph[0] != step.indptr) continue;
      input.sources = size_of(step.sources, inputs);
      input.targets = size_of(step.targets, inputs);
    }
  }
}

size_t Model::find(const char* name) const {
  std::string known;
  for (size_t i = 0; i < inputs.size(); ++i) {
    if (inputs[i].name == name) return i;
    known += (i > 0 ? ", " : "") + inputs[i].name;
  }
  throw PlanError("UnknownNameError",
                  "the model has no input " + quoted(name) + "; it takes " + known);
}

}  // namespace nodebits

using namespace nodebits;

namespace {

nb_status loaded(unsigned flags, nb_model** model, const char* name, const auto& bytes) {
  return guarded([&] {
    need(model, "model");
    *model = nullptr;
    if (flags > NB_SKIP_CHECKSUMS) {
      throw PlanError("ConfigError", "flags " + std::to_string(flags) + " are unknown");
    }
    use_environment();
    *model = new nb_model{std::make_shared<const Model>(bytes(), name, flags)};
  });
}

}  // namespace

extern "C" {

nb_status nb_load(const char* path, unsigned flags, nb_model** model) {
  return loaded(flags, model, path, [&] {
    need(path, "path");
    return map_file(path);
  });
}

nb_status nb_load_memory(const void* data, size_t bytes, unsigned flags, nb_model** model) {
  return loaded(flags, model, "the model", [&] {
    if (bytes > 0) need(data, "data");
    return Bytes{{static_cast<const char*>(data), bytes}, nullptr};
  });
}

void nb_model_free(nb_model* model) { delete model; }

const char* nb_model_header(const nb_model* model) {
  return model == nullptr ? "" : model->of->file.header().c_str();
}

int nb_num_inputs(const nb_model* model) {
  return model == nullptr ? 0 : static_cast<int>(model->of->inputs.size());
}

int nb_num_outputs(const nb_model* model) {
  return model == nullptr ? 0 : static_cast<int>(model->of->plan->outputs().size());
}

nb_status nb_input(const nb_model* model, int index, nb_input_info* info) {
  return guarded([&] {
    need(model, "model");
    need(info, "info");
    const std::vector<ModelInput>& inputs = model->of->inputs;
    if (index < 0 || index >= static_cast<int>(inputs.size())) {
      throw PlanError("ConfigError", "input " + std::to_string(index) + " of " +
                                         std::to_string(inputs.size()) + " does not exist");
    }
    const ModelInput& input = inputs[static_cast<size_t>(index)];
    *info = {};
    info->name = input.name.c_str();
    info->dtype = static_cast<int32_t>(input.dtype);
    info->ndim = static_cast<int32_t>(input.shape.size());
    std::copy(input.shape.begin(), input.shape.end(), info->shape);
    info->is_graph = input.graph.empty() ? 0 : 1;
  });
}

}  // extern "C"
