// Drivers of sums of functions of codes at an edge.
#include "run/gates.h"

#include "run/dispatch.h"
#include "run/memory.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

// Memory of one thread; loops read and write whole rows of it, never beyond.
class Room {
 public:
  explicit Room(int64_t cols) : memory_(static_cast<size_t>(6 * cols + 4)) {
    int32_t* at = memory_.data();
    room_.sums = at;
    room_.number = at + cols;
    room_.mine = reinterpret_cast<int16_t*>(at + 2 * cols);
    room_.value_mine = room_.mine + cols;
    uint8_t* bytes = reinterpret_cast<uint8_t*>(at + 3 * cols);
    room_.source = bytes;
    room_.edge = bytes + cols;
    room_.value = bytes + 2 * cols;
    room_.value_edge = bytes + 3 * cols;
    room_.slope = reinterpret_cast<float*>(at + 4 * cols);
    room_.offset = room_.slope + cols;
  }
  const GateRoom& get() const { return room_; }

 private:
  std::vector<int32_t> memory_;
  GateRoom room_{};
};

template <class Kernel, class Args>
void run_sum(Kernel kernel, const Args& a, int64_t rows, int threads) {
  if (a.num_cols == 0) return;
  prefer_huge_pages(a.out, static_cast<size_t>(rows * a.num_cols) * sizeof(float));
  split_edges(a.indptr, rows, a.num_cols, threads, [&](int64_t begin, int64_t end) {
    const Room room(a.num_cols);
    kernel(a, begin, end, room.get());
  });
}

}  // namespace

void run_modulated_sum(const ModulatedArgs& a, int64_t rows, int threads) {
  run_sum(kernels().modulated_sum, a, rows, threads);
}

void run_gated_product(const GatedProductArgs& a, int64_t rows, int threads) {
  run_sum(kernels().gated_product, a, rows, threads);
}

}  // namespace nodebits
