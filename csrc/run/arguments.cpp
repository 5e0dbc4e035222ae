// Arguments of the drivers that do not depend on how arrays are passed.
#include "run/arguments.h"

namespace nodebits {
namespace {

constexpr int64_t kUsualCols = 4096;

}  // namespace

const float* no_bias(int64_t cols, std::vector<float>* room) {
  static const std::vector<float> usual(static_cast<size_t>(kUsualCols), -0.0f);
  if (cols <= kUsualCols) return usual.data();
  room->assign(static_cast<size_t>(cols), -0.0f);
  return room->data();
}

void count_widths(const uint8_t* widths, int64_t rows, int64_t counts[9]) {
  int64_t total = 0;
  for (int b = 1; b <= 8; ++b) {
    int64_t n = 0;
    for (int64_t i = 0; i < rows; ++i) n += widths[i] == b;
    counts[b] = n;
    total += n;
  }
  check(total == rows, "widths must be 1 to 8");
}

const float* by_width(const float* zero_point, int axis, int64_t cols, std::vector<float>* room) {
  if (axis != 1) return zero_point;
  for (int b = 0; b < 8; ++b) room->insert(room->end(), static_cast<size_t>(cols), zero_point[b]);
  return room->data();
}

}  // namespace nodebits
