// What an x86-64 core with AVX2 can do at most: instructions per nanosecond, eight that do not
// depend on each other at a time, the fastest of many runs.
//
//   c++ -O2 -mavx2 -mfma benchmarks/instructions.cpp -o instructions && ./instructions
#include <immintrin.h>

#include <chrono>
#include <cstdio>

namespace {

constexpr int kTimes = 10000;

template <class F>
void report(const char* name, int products, const F& eight) {
  double best = 1e9;
  for (int run = 0; run < 20000; ++run) {
    const auto start = std::chrono::steady_clock::now();
    for (int i = 0; i < kTimes; ++i) eight();
    const std::chrono::duration<double, std::nano> taken = std::chrono::steady_clock::now() - start;
    if (taken.count() < best) best = taken.count();
  }
  const double each = 8.0 * kTimes / best;
  std::printf("%-34s %6.2f per ns", name, each);
  if (products > 0) std::printf(", %6.1f products per ns", products * each);
  std::printf("\n");
}

#define EIGHT(text)                                                                               \
  [&] {                                                                                           \
    asm volatile(text("%0") text("%1") text("%2") text("%3") text("%4") text("%5") text("%6")     \
                     text("%7")                                                                   \
                 : "+x"(r0), "+x"(r1), "+x"(r2), "+x"(r3), "+x"(r4), "+x"(r5), "+x"(r6), "+x"(r7) \
                 : "x"(a), "x"(b));                                                               \
  }

#define BYTES(to) "vpmaddubsw %8, %9, " to "\n"
#define WORDS(to) "vpmaddwd %8, %9, " to "\n"
#define FLOAT(to) "vfmadd231ps %8, %9, " to "\n"
#define DIVIDE(to) "vdivps %8, %9, " to "\n"

}  // namespace

int main() {
  __m256 a = _mm256_set1_ps(0.1f), b = _mm256_set1_ps(3.7f);
  __m256 r0 = a, r1 = a, r2 = a, r3 = a, r4 = a, r5 = a, r6 = a, r7 = a;
  report("float32 multiply-adds (vfmadd)", 8, EIGHT(FLOAT));
  report("words (vpmaddwd)", 16, EIGHT(WORDS));
  report("bytes (vpmaddubsw)", 32, EIGHT(BYTES));
  report("divisions of eight floats", 0, EIGHT(DIVIDE));
}
