// Choice of the level: the best one available at first use, or the one asked for.
#include "isa.h"

#include <atomic>

#if defined(NODEBITS_HAS_AMX)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace nodebits {
namespace {

#if defined(NODEBITS_HAS_AVX2) || defined(NODEBITS_HAS_AVX512)
bool has_avx2() { return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("bmi2"); }
#endif
#if defined(NODEBITS_HAS_AVX512)
bool has_avx512() {
  return has_avx2() && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
         __builtin_cpu_supports("avx512dq") && __builtin_cpu_supports("avx512vl") &&
         __builtin_cpu_supports("avx512vnni") && __builtin_cpu_supports("avx512vbmi") &&
         __builtin_cpu_supports("gfni");
}
#endif
#if defined(NODEBITS_HAS_AMX)
// The processor has the tiles, and the system lets this process use them: their state is large, so
// it is granted on request only.
bool has_amx() {
  constexpr unsigned kTile = 1u << 24, kInt8 = 1u << 25;
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // ARCH_REQ_XCOMP_PERM
  unsigned a = 0, b = 0, c = 0, d = 0;
  if (!has_avx512() || __get_cpuid_count(7, 0, &a, &b, &c, &d) == 0) return false;
  if ((d & kTile) == 0 || (d & kInt8) == 0) return false;
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}
#endif

struct Entry {
  const char* name;
  const Kernels* (*table)();  // null where the level was not compiled
  bool available;
  const char* reason;
};

const std::vector<Entry>& entries() {
  static const std::vector<Entry> all = [] {
    std::vector<Entry> e;
    e.push_back({"scalar", scalar_kernels, true, ""});
#if defined(NODEBITS_HAS_AVX2)
    e.push_back(
        {"avx2", avx2_kernels, has_avx2(), has_avx2() ? "" : "the processor lacks AVX2 or BMI2"});
#else
    e.push_back({"avx2", nullptr, false, "not compiled for this architecture"});
#endif
#if defined(NODEBITS_HAS_AVX512)
    e.push_back(
        {"avx512", avx512_kernels, has_avx512(),
         has_avx512() ? "" : "the processor lacks AVX-512 F, BW, DQ, VL, VNNI, VBMI or GFNI"});
#else
    e.push_back({"avx512", nullptr, false, "not compiled for this architecture"});
#endif
#if defined(NODEBITS_HAS_AMX)
    const bool amx = has_amx();
    e.push_back({"amx", amx_kernels, amx,
                 amx ? "" : "the processor lacks AMX-INT8, or the system does not permit it"});
#else
    e.push_back({"amx", nullptr, false, "not compiled for this system"});
#endif
    return e;
  }();
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
  for (const Entry& e : entries()) levels.push_back({e.name, e.available, e.reason});
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

const Kernels& kernels() { return *current().table(); }

}  // namespace nodebits
