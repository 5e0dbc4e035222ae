// A run cut by graphs: consecutive graphs whose activations fit the cache next to a core, each part
// on one thread from its first step to its last. What does not fit this picture runs whole, and so
// does what a part refuses: the message is then that of the whole run.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <mutex>
#include <thread>

#include "plan/workspace.h"
#include "run/pool.h"
#include "run/tiles.h"

namespace nodebits {
namespace plan {
namespace {

constexpr int64_t kPartBytes = 96 << 10;  // of one matrix of floats
constexpr int64_t kLeastNodes = 64;       // of a part: below, its fixed costs are felt
constexpr int64_t kPartsPerThread = 4;

struct Part {
  int64_t first, last;              // nodes
  int64_t first_edge, last_edge;    // in the list of edges
  int64_t first_graph, last_graph;  // those without nodes go to the part that follows
};

class PartedRun {
 public:
  PartedRun(const Program& p, const Given& given, int threads, const std::function<void()>& pause)
      : p_(p), given_(given), threads_(threads), pause_(pause) {}

  // False where the run is not to be cut.
  bool run(std::vector<Array>* results) {
    if (!collect() || !cut()) return false;
    results_.resize(p_.outputs.size());
    const std::thread::id caller = std::this_thread::get_id();
    parallel_for(static_cast<int64_t>(parts_.size()), threads_, [&](int64_t i) {
      if (failed_.load(std::memory_order_relaxed)) return;
      const bool mine = std::this_thread::get_id() == caller;
      try {
        if (!run_part(parts_[static_cast<size_t>(i)], mine ? &pause_ : nullptr)) failed_ = true;
      } catch (const PlanError&) {
        failed_ = true;
      }
    });
    if (failed_) return false;
    *results = std::move(results_);
    return true;
  }

 private:
  const Array* array_of(int value) const {
    for (const auto& [number, array] : given_) {
      if (number == value) return &array;
    }
    return nullptr;
  }

  // Finds the arrays by what their rows are; false where they are not as inputs should be.
  bool collect() {
    const Array* batch = array_of(p_.parts.batch);
    if (batch == nullptr || batch->dtype != DType::i64 || batch->ndim != 1) return false;
    nodes_ = batch->shape[0];
    batch_ = static_cast<const int64_t*>(batch->data);
    size_t inputs = 0;
    for (size_t i = 0; i < p_.inputs.size(); ++i) {
      const Array* array = array_of(p_.inputs[i].value);
      const Role role = p_.parts.roles[i];
      if (role == Role::edge_list) {
        if (array != nullptr && array->ndim == 2 && array->dtype == DType::i64 &&
            array->shape[0] == 2) {
          edge_list_ = static_cast<const int64_t*>(array->data);
          edges_ = array->shape[1];
          ++inputs;
        } else if (array != nullptr || !collect_csr(p_.inputs[i])) {
          return false;
        }
        continue;
      }
      if (array == nullptr) return false;
      ++inputs;
      if (role == Role::rows && array->shape[0] != nodes_) return false;
    }
    for (size_t i = 0; i < p_.inputs.size(); ++i) {
      if (p_.parts.roles[i] != Role::edges) continue;
      if (indptr_ != nullptr || array_of(p_.inputs[i].value)->shape[0] != edges_) return false;
    }
    // Anything else that is given is what a step would make.
    return inputs + (indptr_ != nullptr ? csr_values_ : 0) == given_.size();
  }

  bool collect_csr(const Input& input) {
    if (input.graph.size() < 2) return false;
    const Array *ptr = array_of(input.graph[0]), *idx = array_of(input.graph[1]);
    if (ptr == nullptr || idx == nullptr || ptr->dtype != DType::i64 || ptr->ndim != 1 ||
        idx->dtype != DType::i32 || idx->ndim != 1 || ptr->shape[0] != nodes_ + 1)
      return false;
    indptr_ = static_cast<const int64_t*>(ptr->data);
    indices_ = static_cast<const int32_t*>(idx->data);
    edges_ = idx->shape[0];
    csr_ = &input.graph;
    csr_values_ = 2;
    if (input.graph.size() > 2) {
      const Array* perm = array_of(input.graph[2]);
      if (perm == nullptr || perm->dtype != DType::i64 || perm->shape[0] != edges_) return false;
      perm_ = static_cast<const int64_t*>(perm->data);
      ++csr_values_;
    }
    if (indptr_[0] != 0 || indptr_[nodes_] != edges_) return false;
    return first_descent(indptr_, nodes_) < 0;
  }

  // Boundaries at which a graph ends, and the edges of every part.
  bool cut() {
    const int64_t by_cache = kPartBytes / (4 * p_.widest);
    const int64_t fair = threads_ > 1 ? nodes_ / (kPartsPerThread * threads_) : nodes_;
    const int64_t most = std::max(kLeastNodes, std::min(by_cache, fair));
    if (nodes_ < 2 * most || batch_[0] < 0) return false;
    Part part{0, 0, 0, 0, 0, 0};
    for (int64_t n = 1; n < nodes_; ++n) {
      if (batch_[n] == batch_[n - 1]) continue;
      if (batch_[n] < batch_[n - 1]) return false;
      if (n - part.first < most) continue;
      if (!close(&part, n, batch_[n - 1] + 1)) return false;
    }
    if (!close(&part, nodes_, batch_[nodes_ - 1] + 1)) return false;
    if (indptr_ == nullptr && part.first_edge != edges_) return false;
    return parts_.size() > 1;
  }

  bool close(Part* part, int64_t node, int64_t graph) {
    part->last = node;
    part->last_graph = graph;
    part->last_edge = part->first_edge;
    if (indptr_ != nullptr) {
      part->first_edge = indptr_[part->first];
      part->last_edge = indptr_[node];
    } else if (edge_list_ != nullptr) {
      const int64_t *from = edge_list_, *to = edge_list_ + edges_;
      int64_t& e = part->last_edge;
      while (e < edges_ && from[e] >= part->first && from[e] < node && to[e] >= part->first &&
             to[e] < node)
        ++e;
    }
    parts_.push_back(*part);
    *part = {node, node, part->last_edge, part->last_edge, graph, graph};
    return true;
  }

  bool run_part(const Part& part, const std::function<void()>* pause) {
    const Borrowed run(p_);
    if (pause != nullptr && *pause != nullptr) run->pause_with(pause);
    const int64_t nodes = part.last - part.first, edges = part.last_edge - part.first_edge;
    for (size_t i = 0; i < p_.inputs.size(); ++i) {
      const Input& input = p_.inputs[i];
      const Role role = p_.parts.roles[i];
      if (input.value == p_.parts.batch) {
        auto* to = static_cast<int64_t*>(run->room(input.value, DType::i64, {nodes}));
        for (int64_t n = 0; n < nodes; ++n) to[n] = batch_[part.first + n] - part.first_graph;
      } else if (role == Role::edge_list) {
        if (indptr_ != nullptr) {
          if (!give_csr(*run.operator->(), part)) return false;
          continue;
        }
        auto* to = static_cast<int64_t*>(run->room(input.value, DType::i64, {2, edges}));
        for (int64_t row = 0; row < 2; ++row) {
          const int64_t* from = edge_list_ + row * edges_ + part.first_edge;
          for (int64_t e = 0; e < edges; ++e) to[row * edges + e] = from[e] - part.first;
        }
      } else {
        Array array = *array_of(input.value);
        if (role == Role::rows) take(&array, part.first, nodes);
        if (role == Role::edges) take(&array, part.first_edge, edges);
        run->set(input.value, array);
      }
    }
    run->steps(0, static_cast<int>(p_.steps.size()), 1);
    return collect_results(*run.operator->(), part);
  }

  // Rows [first, first + count) where they lie.
  static void take(Array* array, int64_t first, int64_t count) {
    int64_t bytes = bytes_of(array->dtype);
    for (int d = 1; d < array->ndim; ++d) bytes *= array->shape[d];
    array->data = static_cast<const uint8_t*>(array->data) + first * bytes;
    array->shape[0] = count;
  }

  // False where an edge leads out of the part.
  bool give_csr(Workspace& run, const Part& part) const {
    const int64_t nodes = part.last - part.first, edges = part.last_edge - part.first_edge;
    auto* ptr = static_cast<int64_t*>(run.room((*csr_)[0], DType::i64, {nodes + 1}));
    for (int64_t n = 0; n <= nodes; ++n) ptr[n] = indptr_[part.first + n] - part.first_edge;
    auto* idx = static_cast<int32_t*>(run.room((*csr_)[1], DType::i32, {edges}));
    const int32_t offset = static_cast<int32_t>(part.first);
    uint32_t most = 0;
    for (int64_t e = 0; e < edges; ++e) {
      idx[e] = indices_[part.first_edge + e] - offset;
      most = std::max(most, static_cast<uint32_t>(idx[e]));
    }
    if (edges > 0 && static_cast<int64_t>(most) >= nodes) return false;
    if (csr_->size() < 3) return true;
    auto* perm = static_cast<int64_t*>(run.room((*csr_)[2], DType::i64, {edges}));
    uint64_t last = 0;
    for (int64_t e = 0; e < edges; ++e) {
      perm[e] = perm_[part.first_edge + e] - part.first_edge;
      last = std::max(last, static_cast<uint64_t>(perm[e]));
    }
    return edges == 0 || last < static_cast<uint64_t>(edges);
  }

  bool collect_results(const Workspace& run, const Part& part) {
    const int64_t first = p_.parts.by_node ? part.first : part.first_graph;
    const int64_t last = p_.parts.by_node ? part.last : part.last_graph;
    const int64_t all = p_.parts.by_node ? nodes_ : parts_.back().last_graph;
    for (size_t i = 0; i < p_.outputs.size(); ++i) {
      const Value& v = run.value(p_.outputs[i]);
      if (!v.set || v.ndim < 1 || v.shape[0] != last - first) return false;
      int64_t bytes = bytes_of(v.dtype);
      for (int d = 1; d < v.ndim; ++d) bytes *= v.shape[d];
      Array& to = results_[i];
      {
        const std::lock_guard<std::mutex> guard(lock_);
        if (to.owner == nullptr) {
          to.dtype = v.dtype;
          to.ndim = v.ndim;
          std::copy_n(v.shape, v.ndim, to.shape);
          to.shape[0] = all;
          const auto memory = std::make_shared<Buffer>(static_cast<size_t>(all * bytes));
          to.owner = memory;
          to.data = memory->memory;
        }
        for (int d = 1; d < v.ndim; ++d) {
          if (v.shape[d] != to.shape[d]) return false;
        }
      }
      if (bytes > 0 && last > first)
        std::memcpy(static_cast<uint8_t*>(const_cast<void*>(to.data)) + first * bytes, v.data,
                    static_cast<size_t>((last - first) * bytes));
    }
    return true;
  }

  const Program& p_;
  const Given& given_;
  const int threads_;
  const std::function<void()>& pause_;
  int64_t nodes_ = 0, edges_ = 0;
  const int64_t* batch_ = nullptr;
  const int64_t* edge_list_ = nullptr;
  const int64_t* indptr_ = nullptr;
  const int32_t* indices_ = nullptr;
  const int64_t* perm_ = nullptr;
  const std::vector<int>* csr_ = nullptr;
  size_t csr_values_ = 0;
  std::vector<Part> parts_;
  std::vector<Array> results_;
  std::mutex lock_;
  std::atomic<bool> failed_{false};
};

// Below this many numbers a run is over before a thread of the pool has come.
constexpr int64_t kWorthWaking = 1 << 15;

int64_t numbers(const Given& given) {
  int64_t n = 0;
  for (const auto& one : given) n += one.second.count();
  return n;
}

}  // namespace
}  // namespace plan

std::vector<Array> run_parts(const Plan& plan, const Given& given, int threads, GraphStore* store,
                             const std::function<void()>& pause) {
  const plan::Program& p = plan.program();
  std::vector<Array> results;
  if (p.parts.batch >= 0 && plan::PartedRun(p, given, threads, pause).run(&results)) return results;
  std::optional<KeepAwake> awake;
  if (threads > 1 && plan::numbers(given) >= plan::kWorthWaking) awake.emplace();
  const plan::Borrowed run(p);
  for (const auto& [value, array] : given) run->set(value, array);
  if (store != nullptr) run->keep_with(&store->kept());
  if (pause != nullptr) run->pause_with(&pause);
  run->steps(0, plan.steps(), threads);
  results.clear();
  for (int output : plan.outputs()) results.push_back(run->get(output));
  return results;
}

}  // namespace nodebits
