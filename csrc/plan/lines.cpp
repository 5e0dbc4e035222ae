// Lines through staircases.
#include "plan/lines.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "contract/rows.h"

namespace nodebits::plan {
namespace {

constexpr int kMostCorrections = 8;  // of a guessed step; rounding moves it by one or two

int64_t padded(int64_t cols) { return (cols + kLineBlock - 1) / kLineBlock * kLineBlock; }

// One quantizer that reads sums, and what is in between.
class Staircase {
 public:
  Staircase(const Kernels& k, const FusedArgs& a, int output)
      : cols_(a.num_cols), k_(k), a_(a), output_(a.outputs[output]) {
    term_ = {a.terms[0].epilogue, nullptr, nullptr};
    term_.epilogue.row_offset = nullptr;  // of an offset of zero, or not there
    a_.terms = &term_;
    a_.num_terms = 1;
    a_.order = nullptr;
    a_.own = nullptr;
    a_.mixed = nullptr;
    a_.outputs = &output_;
    a_.num_outputs = 1;
    a_.lines = nullptr;
  }
  Staircase(const Staircase&) = delete;
  Staircase& operator=(const Staircase&) = delete;

  int64_t cols() const { return cols_; }
  int bits() const { return output_.bits; }
  int top() const { return (1 << output_.bits) - 1; }

  // A column's code before it is rounded, in real numbers: gain * sum + shift.
  struct Real {
    double gain, shift;
  };
  Real real(int64_t c) const {
    const RescaleArgs& e = term_.epilogue;
    const double scale = e.col_scale[c], bias = e.bias[c];
    const double offset = e.col_offset == nullptr ? 0.0 : e.col_offset[c];
    const double times = a_.post_scale == nullptr ? 1.0 : a_.post_scale[c];
    const double plus = a_.post_scale == nullptr ? 0.0 : a_.post_shift[c];
    const int64_t at = output_.axis == 1 ? c : 0;
    const double by = output_.scale[at];
    return {scale * times / by,
            ((bias - offset * scale) * times + plus) / by + output_.zero_point[at]};
  }

  // The row itself adds this code, in all columns, of so many bits.
  void add_own(int code, int bits, int64_t rows) {
    const std::vector<uint8_t> codes(static_cast<size_t>(rows * cols_), static_cast<uint8_t>(code));
    own_.resize(static_cast<size_t>(rows * packed_row_bytes(cols_, bits)));
    k_.pack({codes.data(), own_.data(), cols_, bits}, 0, rows);
    a_.own = own_.data();
    a_.own_bits = bits;
    a_.own_coding = 0;
  }

  // What the level's kernel makes of rows of sums, by lines where they are given.
  std::vector<uint8_t> codes(std::vector<int32_t> sums, const CodeLine* line = nullptr) {
    const int64_t rows = static_cast<int64_t>(sums.size()) / cols_;
    const int64_t bytes = rows * packed_row_bytes(cols_, output_.bits);
    std::vector<uint8_t> packed(static_cast<size_t>(bytes)), made(sums.size());
    output_.packed = packed.data();
    output_.bytes = bytes;
    a_.lines = line;
    const Tile tile{0, rows, 0, cols_, sums.data(), cols_};
    k_.finish(a_, &tile);
    k_.unpack({packed.data(), made.data(), cols_, output_.bits}, 0, rows);
    return made;
  }

 private:
  int64_t cols_;
  const Kernels& k_;
  FusedArgs a_;
  FusedOutput output_;
  FusedTerm term_;
  std::vector<uint8_t> own_;
};

// The steps of one column: code k of (first, last] begins where the sum times `sign` is at[k - 1].
struct Steps {
  double gain = 0.0;
  int sign = 1;
  int64_t low = 0, high = 0;  // of the sum times `sign`
  int first = 0, last = 0;
  int64_t at[255] = {};
};

// The line in the middle of what the steps leave free.
void draw(const Steps& s, int top, int64_t c, LineColumns* to) {
  const size_t at = static_cast<size_t>(c);
  to->least[at] = static_cast<uint8_t>(s.first);
  to->slope[at] = 0.0f;
  to->start[at] = static_cast<float>(s.first);
  if (s.first == s.last) return;
  const float gain = std::abs(static_cast<float>(s.gain));
  double low = -std::numeric_limits<double>::infinity(), high = -low;
  for (int k = s.first + 1; k <= s.last; ++k) {
    const double first = k - 0.5 - gain * static_cast<double>(s.at[k - 1]);
    low = std::max(low, first);
    high = std::min(high, first + gain);
  }
  if (s.last < top) high = std::min(high, s.last + 0.5 - gain * static_cast<double>(s.high));
  to->slope[at] = static_cast<float>(s.sign) * gain;
  to->start[at] = static_cast<float>(low + (high - low) / 2);
}

// The steps of all columns of a product.
class ProductSteps {
 public:
  ProductSteps(Staircase& stairs, int64_t low, int64_t high)
      : stairs_(stairs), cols_(stairs.cols()), steps_(static_cast<size_t>(cols_)) {
    for (int64_t end : {low, high})
      ends_.insert(ends_.end(), static_cast<size_t>(cols_), as_sum(end));
    of_ends_ = stairs.codes(ends_);
    for (int64_t c = 0; c < cols_; ++c) begin(c, low, high);
  }

  // False where a line misses a step.
  bool draw_lines(LineColumns* to) {
    if (!known_) return false;
    std::vector<int32_t> sums;
    std::vector<uint8_t> right;
    for (int turn = 0;; ++turn) {
      sums = probes();
      right = stairs_.codes(sums);
      if (!correct(right)) break;
      if (turn == kMostCorrections) return false;
    }
    for (int64_t c = 0; c < cols_; ++c) draw(steps_[static_cast<size_t>(c)], stairs_.top(), c, to);
    sums.insert(sums.end(), ends_.begin(), ends_.end());
    right.insert(right.end(), of_ends_.begin(), of_ends_.end());
    const CodeLine line = to->line();
    return stairs_.codes(sums, &line) == right;
  }

 private:
  static int32_t as_sum(int64_t sum) {
    return static_cast<int32_t>(std::clamp<int64_t>(sum, -INT32_MAX, INT32_MAX));
  }

  void begin(int64_t c, int64_t low, int64_t high) {
    Steps& s = steps_[static_cast<size_t>(c)];
    const Staircase::Real real = stairs_.real(c);
    s.gain = real.gain;
    s.sign = real.gain < 0.0 ? -1 : 1;
    s.low = s.sign > 0 ? low : -high;
    s.high = s.sign > 0 ? high : -low;
    s.first = of_ends_[static_cast<size_t>(s.sign > 0 ? c : cols_ + c)];
    s.last = of_ends_[static_cast<size_t>(s.sign > 0 ? cols_ + c : c)];
    known_ &= std::isfinite(real.gain) && std::isfinite(real.shift) && s.first <= s.last;
    for (int k = s.first + 1; known_ && k <= s.last; ++k) {
      const double guess = std::ceil((k - 0.5 - real.shift) / std::abs(real.gain));
      s.at[k - 1] = static_cast<int64_t>(
          std::clamp(guess, static_cast<double>(s.low + 1), static_cast<double>(s.high)));
    }
  }

  // Two rows for every code from 1 on: the sums before it begins, and where it does.
  std::vector<int32_t> probes() const {
    std::vector<int32_t> sums(static_cast<size_t>(2 * stairs_.top() * cols_));
    for (int64_t c = 0; c < cols_; ++c) {
      const Steps& s = steps_[static_cast<size_t>(c)];
      for (int k = 1; k <= stairs_.top(); ++k) {
        const int64_t at = k > s.first && k <= s.last ? s.at[k - 1] : s.low + 1;
        const size_t place = static_cast<size_t>(2 * (k - 1) * cols_ + c);
        sums[place] = as_sum(s.sign * (at - 1));
        sums[place + static_cast<size_t>(cols_)] = as_sum(s.sign * at);
      }
    }
    return sums;
  }

  // Moves guesses that the kernel does not confirm; whether there were any.
  bool correct(const std::vector<uint8_t>& right) {
    bool any = false;
    for (int64_t c = 0; c < cols_; ++c) {
      Steps& s = steps_[static_cast<size_t>(c)];
      for (int k = s.first + 1; k <= s.last; ++k) {
        const size_t place = static_cast<size_t>(2 * (k - 1) * cols_ + c);
        const int before = right[place], after = right[place + static_cast<size_t>(cols_)];
        const int64_t way = before >= k ? -1 : after < k ? 1 : 0;
        s.at[k - 1] = std::clamp(s.at[k - 1] + way, s.low + 1, s.high);
        any |= way != 0;
      }
    }
    return any;
  }

  Staircase& stairs_;
  int64_t cols_;
  std::vector<Steps> steps_;
  std::vector<int32_t> ends_;
  std::vector<uint8_t> of_ends_;
  bool known_ = true;
};

// Sums 0 to kLineSums - 1, a row each, less what the row itself adds.
std::vector<int32_t> all_sums(int64_t cols, int less) {
  std::vector<int32_t> sums;
  for (int n = 0; n < kLineSums; ++n)
    sums.insert(sums.end(), static_cast<size_t>(cols), std::max(n - less, 0));
  return sums;
}

// Whether codes rise with the sum, in steps that are found.
bool steps_of_sum(const std::vector<uint8_t>& codes, int64_t cols, int64_t c, Steps* s) {
  const auto code = [&](int n) { return codes[static_cast<size_t>(n * cols + c)]; };
  s->high = kLineSums - 1;
  s->first = code(0);
  s->last = code(kLineSums - 1);
  for (int n = 1; n < kLineSums; ++n) {
    if (code(n) < code(n - 1)) return false;
    for (int k = code(n - 1) + 1; k <= code(n); ++k) s->at[k - 1] = n;
  }
  return true;
}

}  // namespace

LineColumns::LineColumns(int64_t cols)
    : slope(static_cast<size_t>(padded(cols)), 0.0f),
      start(static_cast<size_t>(padded(cols)), 0.0f),
      least(static_cast<size_t>(padded(cols)), 0) {}

const CodeLine* ProductLines::of(const Kernels& k, const FusedArgs& a, int64_t low,
                                 int64_t high) const {
  const Found& found = found_.of(k, [&] {
    auto made = std::make_unique<Found>();
    bool known = k.sum_lines != nullptr && a.num_cols > 0;  // other levels read no lines
    for (int i = 0; known && i < a.num_outputs; ++i) {
      Staircase stairs(k, a, i);
      made->columns.emplace_back(a.num_cols);
      known = ProductSteps(stairs, low, high).draw_lines(&made->columns.back());
    }
    for (const LineColumns& c : made->columns) {
      if (known) made->lines.push_back(c.line());
    }
    return made;
  });
  return found.lines.empty() ? nullptr : found.lines.data();
}

bool SumLines::fill(const Kernels& k, const FusedArgs& a, int bits, bool own,
                    SumLineArgs* to) const {
  const Found& found = found_.of(k, [&] {
    auto made = std::make_unique<Found>(a.num_cols);
    Staircase stairs(k, a, 0);
    const int64_t cols = a.num_cols;
    const size_t row = static_cast<size_t>(cols);
    std::vector<std::vector<uint8_t>> by_own;  // codes of all sums
    for (int o = 0; o < (own ? 1 << bits : 1); ++o) {
      if (own) stairs.add_own(o, bits, kLineSums);
      by_own.push_back(stairs.codes(all_sums(cols, o)));
    }
    std::vector<bool> looked_up(row, false);
    for (size_t c = 0; c < row; ++c) {
      Steps steps;
      steps.gain = stairs.real(static_cast<int64_t>(c)).gain;
      bool one = std::isfinite(steps.gain) && steps.gain >= 0.0 &&
                 steps_of_sum(by_own[0], cols, static_cast<int64_t>(c), &steps);
      for (size_t o = 1; o < by_own.size(); ++o) {
        for (size_t n = o; n < kLineSums; ++n)
          one &= by_own[o][n * row + c] == by_own[0][n * row + c];
      }
      looked_up[c] = !one;
      if (one) draw(steps, stairs.top(), static_cast<int64_t>(c), &made->columns);
    }
    const CodeLine line = made->columns.line();
    Staircase without(k, a, 0);
    const std::vector<uint8_t> on_lines = without.codes(all_sums(cols, 0), &line);
    for (size_t c = 0; c < row; ++c) {
      for (size_t n = 0; n < kLineSums && !looked_up[c]; ++n)
        looked_up[c] = on_lines[n * row + c] != by_own[0][n * row + c];
      if (!looked_up[c]) continue;
      made->looked_up.push_back(static_cast<int32_t>(c));
      made->codes.emplace_back();
      for (const std::vector<uint8_t>& codes : by_own) {
        for (size_t n = 0; n < kLineSums; ++n) made->codes.back().push_back(codes[n * row + c]);
      }
    }
    made->known = made->looked_up.empty() ||
                  (made->looked_up.size() <= kMostLookedUp && 8 % stairs.bits() == 0);
    return made;
  });
  if (!found.known) return false;
  to->line = found.columns.line();
  to->num_looked_up = static_cast<int>(found.looked_up.size());
  for (size_t i = 0; i < found.looked_up.size(); ++i) {
    to->looked_up[i] = found.looked_up[i];
    to->codes[i] = found.codes[i].data();
  }
  return true;
}

}  // namespace nodebits::plan
