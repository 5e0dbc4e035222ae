// Runs: inputs are noted as they come and bound when everything is there.
#include <algorithm>
#include <utility>

#include "capi/guard.h"
#include "capi/handles.h"
#include "plan/json_reader.h"

using namespace nodebits;

struct nb_run {
  explicit nb_run(std::shared_ptr<const Model> model_)
      : model(std::move(model_)),
        given(model->inputs.size()),
        set(model->inputs.size()),
        graphs(model->inputs.size()) {}

  void set_input(size_t index, const nb_array* array);
  void set_graph(const char* name, const nb_graph* graph);
  void set_features(const char* name, const nb_features* features);
  void execute();
  nb_array output(size_t index) const;

  std::shared_ptr<const Model> model;
  std::atomic<bool> stop{false};
  int threads = 1;

 private:
  Given bound() const;
  void bind_graph(size_t index, Given& to) const;
  void check_graph(size_t index) const;
  GraphStore* store();

  std::vector<Array> given;  // one per input, like the next two
  std::vector<bool> set;
  std::vector<std::shared_ptr<const Graph>> graphs;
  std::unique_ptr<GraphStore> several;  // where more than one graph is set
  std::vector<Array> outputs;
};

void nb_run::set_input(size_t index, const nb_array* array) {
  const ModelInput& input = model->inputs[index];
  const Array found = checked(array, input.name.c_str());
  given[index] = input.dtype == DType::i64 ? widened(found) : found;
  set[index] = true;
  if (graphs[index] != nullptr) several.reset();
  graphs[index] = nullptr;
}

void nb_run::set_graph(const char* name, const nb_graph* graph) {
  size_t index = model->inputs.size();
  if (name != nullptr) {
    index = model->find(name);
  } else {
    for (size_t i = 0; i < model->inputs.size(); ++i) {
      if (model->inputs[i].graph.empty()) continue;
      if (index < model->inputs.size()) {
        throw PlanError("ConfigError", "the model has several graphs: name one of its inputs");
      }
      index = i;
    }
  }
  if (index == model->inputs.size() || model->inputs[index].graph.empty()) {
    throw PlanError("ConfigError", name == nullptr ? "the model takes no graph"
                                                   : "input " + quoted(name) + " is no edge index");
  }
  need(graph, "graph");
  if (graphs[index] != graph->of) several.reset();
  graphs[index] = graph->of;
  given[index] = {};
  set[index] = true;
}

void nb_run::set_features(const char* name, const nb_features* features) {
  need(features, "features");
  const std::vector<PackedArgument>& packed = model->packed;
  if (packed.empty()) {
    throw PlanError("ConfigError",
                    "the model takes float features: have nodebits make its plan of packed ones, "
                    "packed.plan(features, ...), and save it again");
  }
  const auto named = [&](const PackedArgument& one) { return name == nullptr || one.name == name; };
  const auto found = std::find_if(packed.begin(), packed.end(), named);
  if (found == packed.end() || (name == nullptr && packed.size() > 1)) {
    throw PlanError("UnknownNameError",
                    name == nullptr ? "the model takes several packed features: name one of them"
                                    : "the model takes no packed features " + quoted(name));
  }
  for (size_t i = 0; i < given.size(); ++i) {
    const std::string& input = model->inputs[i].name;
    const size_t end = found->name.size();
    if (input.compare(0, end, found->name) != 0 || input.size() <= end || input[end] != '/')
      continue;
    const size_t last = input.rfind('/');
    const std::string site = input.substr(end + 1, last - end - 1);
    const plan::Json* wanted = found->by_site.find(site);
    given[i] = features->of->part(model->file, site, input.substr(last + 1),
                                  wanted == nullptr ? plan::Json() : *wanted);
    set[i] = true;
  }
}

void nb_run::check_graph(size_t index) const {
  const ModelInput& input = model->inputs[index];
  const Graph& graph = *graphs[index];
  const auto compare = [&](const SizeOf& size, int64_t has, const char* which) {
    if (size.input < 0) return;
    const Array& other = given[static_cast<size_t>(size.input)];
    const int64_t wants = size.axis < other.ndim ? other.shape[size.axis] : has;
    if (wants == has) return;
    throw PlanError("GraphMismatchError",
                    "the graph of " + quoted(input.name) + " has " + std::to_string(has) + " " +
                        which + " nodes, " +
                        quoted(model->inputs[static_cast<size_t>(size.input)].name) + " has " +
                        std::to_string(wants) + " rows: set the graph that belongs to it");
  };
  compare(input.sources, graph.sources, "source");
  compare(input.targets, graph.indptr.shape[0] - 1, "target");
}

void nb_run::bind_graph(size_t index, Given& to) const {
  const ModelInput& input = model->inputs[index];
  const Graph& graph = *graphs[index];
  check_graph(index);
  const Array* parts[] = {&graph.indptr, &graph.indices, &graph.perm};
  for (size_t i = 0; i < input.graph.size(); ++i) to.emplace_back(input.graph[i], *parts[i]);
  if (input.read_as_edges) to.emplace_back(input.value, graph.edges());
}

GraphStore* nb_run::store() {
  const auto is_set = [](const auto& graph) { return graph != nullptr; };
  const auto count = std::count_if(graphs.begin(), graphs.end(), is_set);
  if (count == 0) return nullptr;
  if (count == 1) return &(*std::find_if(graphs.begin(), graphs.end(), is_set))->store;
  // What is kept of one graph must not meet another one: these belong together.
  if (several == nullptr) several = std::make_unique<GraphStore>();
  return several.get();
}

Given nb_run::bound() const {
  Given all;
  for (size_t i = 0; i < given.size(); ++i) {
    const ModelInput& input = model->inputs[i];
    if (!set[i]) {
      throw PlanError("ConfigError",
                      "input " + quoted(input.name) + " is missing: set it before the run");
    }
    if (graphs[i] != nullptr) {
      bind_graph(i, all);
    } else {
      all.emplace_back(input.value, given[i]);
    }
  }
  return all;
}

void nb_run::execute() {
  // Whatever happens, the next run is a new one.
  const std::shared_ptr<void> at_end(nullptr, [this](void*) { stop.store(false); });
  outputs.clear();  // before the workspace, which would leave their memory to them
  outputs = run_parts(*model->plan, bound(), threads, store(), [this] {
    if (stop.load(std::memory_order_relaxed)) {
      throw PlanError("KeyboardInterrupt", "the run was interrupted");
    }
  });
}

nb_array nb_run::output(size_t index) const {
  if (outputs.empty())
    throw PlanError("ConfigError", "there are no outputs yet: execute the run first");
  if (index >= outputs.size()) {
    throw PlanError("ConfigError", "output " + std::to_string(index) + " of " +
                                       std::to_string(outputs.size()) + " does not exist");
  }
  const Array& found = outputs[index];
  nb_array out{static_cast<int32_t>(found.dtype), found.ndim, {}, found.data};
  std::copy(found.shape, found.shape + found.ndim, out.shape);
  return out;
}

extern "C" {

nb_status nb_run_new(const nb_model* model, nb_run** run) {
  return guarded([&] {
    need(run, "run");
    *run = nullptr;
    need(model, "model");
    *run = new nb_run(model->of);
  });
}

void nb_run_free(nb_run* run) { delete run; }

nb_status nb_set_threads(nb_run* run, int threads) {
  return guarded([&] {
    need(run, "run");
    if (threads < 1) {
      throw PlanError("ConfigError",
                      "threads is " + std::to_string(threads) + "; at least 1 is needed");
    }
    run->threads = threads;
  });
}

nb_status nb_set_input(nb_run* run, const char* name, const nb_array* array) {
  return guarded([&] {
    need(run, "run");
    need(name, "name");
    run->set_input(run->model->find(name), array);
  });
}

nb_status nb_set_features(nb_run* run, const nb_array* array) {
  return guarded([&] {
    need(run, "run");
    if (run->model->inputs.empty()) throw PlanError("ConfigError", "the model takes no input");
    run->set_input(0, array);
  });
}

nb_status nb_set_packed_features(nb_run* run, const char* name, const nb_features* features) {
  return guarded([&] {
    need(run, "run");
    run->set_features(name, features);
  });
}

nb_status nb_set_graph(nb_run* run, const char* name, const nb_graph* graph) {
  return guarded([&] {
    need(run, "run");
    run->set_graph(name, graph);
  });
}

nb_status nb_execute(nb_run* run) {
  return guarded([&] {
    need(run, "run");
    run->execute();
  });
}

nb_status nb_output(const nb_run* run, int index, nb_array* array) {
  return guarded([&] {
    need(run, "run");
    need(array, "array");
    *array = run->output(static_cast<size_t>(index));
  });
}

nb_status nb_predict(nb_run* run, const nb_array* inputs, int num_inputs, nb_array* outputs,
                     int num_outputs) {
  return guarded([&] {
    need(run, "run");
    const Model& model = *run->model;
    const auto count = [](const char* what, int given, size_t wanted) {
      if (given != static_cast<int>(wanted)) {
        throw PlanError("ConfigError", "the model has " + std::to_string(wanted) + " " + what +
                                           ", " + std::to_string(given) + " were given");
      }
    };
    count("inputs", num_inputs, model.inputs.size());
    count("outputs", num_outputs, model.plan->outputs().size());
    if (num_inputs > 0) need(inputs, "inputs");
    if (num_outputs > 0) need(outputs, "outputs");
    for (int i = 0; i < num_inputs; ++i) {
      if (inputs[i].ndim != -1) run->set_input(static_cast<size_t>(i), inputs + i);
    }
    run->execute();
    for (int i = 0; i < num_outputs; ++i) outputs[i] = run->output(static_cast<size_t>(i));
  });
}

void nb_interrupt(nb_run* run) {
  if (run != nullptr) run->stop.store(true);
}

}  // extern "C"
