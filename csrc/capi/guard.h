// The border of the C interface: no exception passes it, each becomes a status and a sentence.
#pragma once

#include <new>
#include <string>

#include "capi/nodebits.h"
#include "plan/plan.h"

namespace nodebits {

// Keeps a sentence for nb_error() of this thread and gives the status that belongs to its kind.
// Takes no memory: that may be what is missing.
nb_status remember(const char* kind, const char* sentence) noexcept;

template <class F>
nb_status guarded(const F& f) noexcept {
  try {
    f();
    return NB_OK;
  } catch (const PlanError& error) {
    return remember(error.kind.c_str(), error.what());
  } catch (const std::bad_alloc&) {
    return remember("OutOfMemoryError", "memory ran out: run smaller batches");
  } catch (const std::exception& error) {
    return remember("RuntimeError", error.what());
  } catch (...) {
    return remember("RuntimeError", "an exception of unknown type");
  }
}

// Throws PlanError unless a pointer that must be given is.
inline void need(const void* pointer, const char* name) {
  if (pointer == nullptr) throw PlanError("ConfigError", std::string(name) + " is NULL");
}

}  // namespace nodebits
