// Driver of the feature scan.
#include "run/sparse.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "run/dispatch.h"
#include "run/schedule.h"
#include "run/tiles.h"

namespace nodebits {

SparseFound run_scan(const ScanArgs& a, int64_t rows, int32_t* indices, uint8_t* codes,
                     int64_t room, int threads) {
  if (rows == 0) return {0, {false, false, true}};
  const Kernels& k = kernels();
  // Blocks of rows write to equal shares of the room, which close up afterwards.
  const int64_t blocks = std::min<int64_t>(rows, 64);
  const int64_t share = room / blocks;
  std::vector<int64_t> found(static_cast<size_t>(blocks));
  std::vector<ScanFlags> flags(static_cast<size_t>(blocks));
  const int used = rows * a.num_cols < kTaskWork ? 1 : threads;
  parallel_for(blocks, used, [&](int64_t b) {
    const Buffer values(static_cast<size_t>(a.num_cols) * sizeof(float));
    const size_t at = static_cast<size_t>(b);
    found[at] =
        k.scan(a, rows * b / blocks, rows * (b + 1) / blocks, indices + b * share,
               codes + b * share, reinterpret_cast<float*>(values.memory), share, &flags[at]);
  });
  SparseFound result{0, {false, false, true}};
  for (int64_t b = 0; b < blocks; ++b) {
    const size_t at = static_cast<size_t>(b);
    result.flags.negative |= flags[at].negative;
    result.flags.mixed |= flags[at].mixed;
    result.flags.finite &= flags[at].finite;
    if (found[at] < 0 || result.count < 0) {
      result.count = -1;
      continue;
    }
    const size_t n = static_cast<size_t>(found[at]);
    if (n == 0) continue;  // dense rows: there are no arrays
    std::memmove(indices + result.count, indices + b * share, n * sizeof(int32_t));
    std::memmove(codes + result.count, codes + b * share, n);
    result.count += found[at];
  }
  return result;
}

}  // namespace nodebits
