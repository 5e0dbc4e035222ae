// Choice of the level: the best one available at first use, or the one asked for.
#include "run/dispatch.h"

#include <atomic>

namespace nodebits {

// Written by CMake: NODEBITS_COMPILED(name) and NODEBITS_ABSENT(name) for every line of
// nodebits_isa, slowest first.
#define NODEBITS_COMPILED(name) extern const Level level_##name;
#define NODEBITS_ABSENT(name)
#include "levels.inc"
#undef NODEBITS_COMPILED
#undef NODEBITS_ABSENT

namespace {

struct Entry {
  const char* name;
  const Level* level;  // null where it was not compiled
  bool available;
};

const std::vector<Entry>& entries() {
#define NODEBITS_COMPILED(name) {#name, &level_##name, level_##name.supported()},
#define NODEBITS_ABSENT(name) {#name, nullptr, false},
  static const std::vector<Entry> all = {
#include "levels.inc"
  };
#undef NODEBITS_COMPILED
#undef NODEBITS_ABSENT
  return all;
}

const Entry* best() {
  const Entry* found = nullptr;
  for (const Entry& e : entries()) {
    if (e.available) found = &e;
  }
  return found;
}

std::atomic<const Entry*> g_current{nullptr};

const Entry& current() {
  const Entry* e = g_current.load(std::memory_order_acquire);
  if (e == nullptr) {
    e = best();
    g_current.store(e, std::memory_order_release);
  }
  return *e;
}

}  // namespace

std::vector<IsaLevel> isa_levels() {
  std::vector<IsaLevel> levels;
  for (const Entry& e : entries()) {
    std::string reason;
    if (e.level == nullptr) {
      reason = "not compiled for this system";
    } else if (!e.available) {
      reason = std::string("the processor lacks ") + e.level->missing;
    }
    levels.push_back({e.name, e.available, reason});
  }
  return levels;
}

bool set_isa(const std::string& name) {
  for (const Entry& e : entries()) {
    if (name == e.name && e.available) {
      g_current.store(&e, std::memory_order_release);
      return true;
    }
  }
  return false;
}

const char* current_isa() { return current().name; }

const Kernels& kernels() { return *current().level->kernels(); }

}  // namespace nodebits
