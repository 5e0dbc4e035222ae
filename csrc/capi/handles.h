// What stands behind the handles. A handle is a share of it: handles may go in any order.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <string>
#include <vector>

#include "capi/features.h"
#include "capi/file.h"
#include "capi/nodebits.h"
#include "plan/json.h"
#include "plan/plan.h"

namespace nodebits {

// A size that a graph must have: that of another input along an axis; -1: any.
struct SizeOf {
  int input = -1;
  int axis = 0;
};

struct ModelInput {
  std::string name;
  int value = -1;
  DType dtype = DType::f32;
  std::vector<int64_t> shape;  // -1: any
  std::vector<int> graph;      // values of its rows: indptr, indices, perm; or none
  SizeOf sources, targets;
  bool read_as_edges = false;  // somebody but the step that makes rows reads it
};

// Features packed ahead that a model takes, as its plan describes them.
struct PackedArgument {
  std::string name;    // of the argument
  plan::Json by_site;  // kind, bits and columns of the rows
};

struct Model {
  Model(Bytes bytes, const std::string& name, unsigned flags);

  StoredFile file;
  std::shared_ptr<const Plan> plan;
  std::vector<ModelInput> inputs;
  std::vector<PackedArgument> packed;

  // Throws PlanError where there is none of that name.
  size_t find(const char* name) const;
};

struct Graph {
  Array indptr, indices, perm;
  int64_t sources = 0;
  mutable GraphStore store;

  // Its edges in the order in which they came.
  Array edges() const;

 private:
  mutable std::once_flag edges_made_;
  mutable Array edges_;
};

// Throws PlanError unless it is something that a value can be.
Array checked(const nb_array* array, const char* name);

// int64 of int32; anything else as it is.
Array widened(const Array& array);

// The instruction set of the environment, once.
void use_environment();

}  // namespace nodebits

struct nb_model {
  std::shared_ptr<const nodebits::Model> of;
};

struct nb_features {
  std::shared_ptr<const nodebits::Features> of;
};

struct nb_graph {
  std::shared_ptr<const nodebits::Graph> of;
};
