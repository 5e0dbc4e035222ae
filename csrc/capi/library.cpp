// The library itself: its version and its instruction sets.
#include <cstdlib>
#include <mutex>
#include <string>
#include <vector>

#include "capi/guard.h"
#include "capi/handles.h"
#include "run/dispatch.h"

namespace nodebits {
namespace {

void switch_to(const std::string& name) {
  // Python's backend in torch's words; here the plain loops stand for it.
  if (set_isa(name == "reference" ? "scalar" : name)) return;
  std::string known;
  for (const IsaLevel& level : isa_levels()) {
    if (level.available) known += (known.empty() ? "" : ", ") + std::string(level.name);
  }
  throw PlanError("UnsupportedIsaError",
                  "instruction set '" + name.substr(0, 60) +
                      "' is unknown or not available here: " + "choose one of " + known);
}

}  // namespace

void use_environment() {
  static std::mutex mutex;
  static bool done = false;
  const std::lock_guard<std::mutex> lock(mutex);
  if (done) return;
  const char* name = std::getenv("NODEBITS_ISA");
  if (name != nullptr && *name != 0) switch_to(name);
  done = true;
}

}  // namespace nodebits

extern "C" {

int nb_api_version(void) { return NB_API_VERSION; }

const char* nb_version(void) { return NODEBITS_VERSION; }

const char* nb_isa(void) {
  nodebits::guarded(nodebits::use_environment);
  return nodebits::current_isa();
}

nb_status nb_set_isa(const char* name) {
  return nodebits::guarded([&] {
    nodebits::need(name, "name");
    // The environment's choice is one for those who make none.
    if (nodebits::guarded(nodebits::use_environment) != NB_OK) {
    }
    nodebits::switch_to(name);
  });
}

const char* nb_isa_level(int index, int* available) {
  const char* name = nullptr;
  nodebits::guarded([&] {
    const std::vector<nodebits::IsaLevel> levels = nodebits::isa_levels();
    if (index < 0 || index >= static_cast<int>(levels.size())) return;
    const nodebits::IsaLevel& level = levels[static_cast<size_t>(index)];
    if (available != nullptr) *available = level.available ? 1 : 0;
    name = level.name;
  });
  return name;
}

}  // extern "C"
