#include "capi/guard.h"

#include <cstdio>
#include <cstring>

namespace nodebits {
namespace {

// Plain memory: a string would need freeing in every thread that ever saw an error.
thread_local char t_sentence[2048];
thread_local char t_kind[64];

struct Row {
  const char* kind;
  nb_status status;
};

// Kinds that are not listed are about arguments.
constexpr Row kStatus[] = {
    {"FileNotFoundError", NB_ERROR_FILE},        {"OSError", NB_ERROR_FILE},
    {"FileFormatError", NB_ERROR_FILE},          {"FileVersionError", NB_ERROR_VERSION},
    {"PlanRefused", NB_ERROR_UNSUPPORTED},       {"OutOfMemoryError", NB_ERROR_MEMORY},
    {"KeyboardInterrupt", NB_ERROR_INTERRUPTED}, {"RuntimeError", NB_ERROR_INTERNAL},
};

}  // namespace

nb_status remember(const char* kind, const char* sentence) noexcept {
  // A plan that does not serve these inputs: here there is no module that might.
  if (std::strcmp(kind, "Refused") == 0) kind = "PlanRefused";
  std::snprintf(t_kind, sizeof(t_kind), "%s", kind);
  std::snprintf(t_sentence, sizeof(t_sentence), "%s", sentence);
  for (const Row& row : kStatus) {
    if (std::strcmp(row.kind, kind) == 0) return row.status;
  }
  return NB_ERROR_ARGUMENT;
}

}  // namespace nodebits

extern "C" {

const char* nb_error(void) { return nodebits::t_sentence; }

const char* nb_error_kind(void) { return nodebits::t_kind; }

}  // extern "C"
