#include "plan/strips.h"

#include <algorithm>
#include <cstring>
#include <exception>
#include <mutex>

#include "plan/workspace.h"
#include "run/pool.h"

namespace nodebits::plan {
namespace {

// Entries of a value at a time: a few values of so many stay in a cache of the second level.
constexpr int64_t kBlock = 1 << 14;
// Entries below which all that the steps make stays in some cache.
constexpr int64_t kLeast = 1 << 18;
constexpr int64_t kTasks = 4;  // for each thread
constexpr int kLeastSteps = 2;

bool holds(const std::vector<int>& values, int value) {
  return std::find(values.begin(), values.end(), value) != values.end();
}

}  // namespace

std::vector<int> find_strips(const Program& p) {
  const int count = static_cast<int>(p.steps.size());
  std::vector<int> found(p.steps.size(), 0);
  for (int first = 0, last; first < count; first = std::max(last, first + 1)) {
    const auto fits = [&](int i) {
      const Step& step = *p.steps[static_cast<size_t>(i)];
      return step.by_rows && step.sizes.empty();
    };
    for (last = first; last < count && fits(last);) ++last;
    if (last - first >= kLeastSteps) found[static_cast<size_t>(first)] = last;
  }
  return found;
}

struct Workspace::Strip {
  int first = 0, last = 0;
  int64_t rows = 0, block = 0;  // block: rows at a time
  int ndim = 0;
  bool refuses = false;
  std::vector<int> reads;      // values from outside
  std::vector<Value> results;  // of the first rows, which others read; by their number in `made`
  std::vector<int> made;

  // Whether a value from outside has the rows, which are cut.
  bool cuts(const Value& v) const { return v.ndim == ndim && v.shape[0] == rows; }
  // Whether it is the same for all rows: broadcasting begins at the last dimension.
  bool repeats(const Value& v) const {
    return v.ndim < ndim || (v.ndim == ndim && v.shape[0] == 1);
  }
  const Step& step(const Program& p, int i) const { return *p.steps[static_cast<size_t>(i)]; }
};

// A workspace that ends when another one does, for as long as this lives.
struct Workspace::Stopped {
  Stopped(Workspace* own, const std::atomic<bool>* flag) : own_(own) { own->stop_ = flag; }
  ~Stopped() { own_->stop_ = nullptr; }
  Stopped(const Stopped&) = delete;
  Stopped& operator=(const Stopped&) = delete;

 private:
  Workspace* own_;
};

// Finds the rows, by what the first step reads; false where it does not pay.
bool Workspace::begin(Strip* s) const {
  int64_t entries = 0;
  for (int in : s->step(program_, s->first).ins) {
    const Value& v = values_[static_cast<size_t>(in)];
    if (!v.set || v.ndim < s->ndim) continue;
    if (v.ndim > s->ndim) s->rows = 0;
    s->ndim = v.ndim;
    s->rows = std::max(s->rows, v.ndim == 0 ? 0 : v.shape[0]);
    entries = std::max(entries, v.count());
  }
  if (s->ndim < 2 || entries < kLeast) return false;
  s->block = std::max<int64_t>(1, kBlock / std::max<int64_t>(1, entries / s->rows));
  return s->rows >= 2 * s->block;
}

void Workspace::lend(const Workspace& from, const Strip& s, int64_t begin, int64_t end) {
  for (int in : s.reads) {
    if (program_.constant[static_cast<size_t>(in)]) continue;
    const Value& v = from.values_[static_cast<size_t>(in)];
    release(in);
    Value& own = values_[static_cast<size_t>(in)];
    own = v;
    own.owner.reset();
    own.block = -1;
    own.stable = false;
    if (!s.cuts(v)) continue;
    own.shape[0] = end - begin;
    own.data = v.as<uint8_t>() + begin * (v.count() / v.shape[0] * bytes_of(v.dtype));
  }
}

// Runs the steps on the first rows: which of them give a row for each, and what others read.
bool Workspace::probe(Strip* s) {
  Borrowed own(program_);
  own->frame_.threads = 1;
  std::vector<int> rows, others;  // values of the steps: with the rows, and other ones
  std::vector<Value> made;
  // Whether a step works on the rows, and what it reads besides is the same for all.
  const auto fits = [&](const Step& step) {
    bool some = false;
    for (int in : step.ins) {
      const Value& v = values_[static_cast<size_t>(in)];
      if (holds(rows, in)) {
        some = true;
      } else if (holds(others, in) || !v.set) {
        return false;
      } else if (s->cuts(v)) {
        if (program_.constant[static_cast<size_t>(in)]) return false;
        some = true;
      } else if (!s->repeats(v)) {
        return false;
      }
    }
    return some && std::none_of(step.outs.begin(), step.outs.end(),
                                [&](int out) { return values_[static_cast<size_t>(out)].set; });
  };
  int at = s->first;
  for (; at < s->last && fits(s->step(program_, at)); ++at) {
    const Step& step = s->step(program_, at);
    Strip next = *s;
    next.reads.clear();
    for (int in : step.ins) {
      if (!holds(rows, in) && !holds(s->reads, in)) next.reads.push_back(in);
    }
    own->lend(*this, next, 0, s->block);
    own->run(step);
    const auto has_rows = [&](int out) {
      const Value& v = own->values_[static_cast<size_t>(out)];
      return !v.set || (v.within < 0 && v.ndim > 0 && v.shape[0] == s->block);
    };
    if (!std::all_of(step.outs.begin(), step.outs.end(), has_rows)) break;
    s->reads.insert(s->reads.end(), next.reads.begin(), next.reads.end());
    s->refuses |= step.refuses;
    for (int out : step.outs) {
      const Value& v = own->values_[static_cast<size_t>(out)];
      (v.ndim == s->ndim ? rows : others).push_back(out);
      made.push_back(v);
      s->made.push_back(out);
    }
  }
  s->last = at;
  const auto is_read = [&](int value) {
    for (int i = s->first; i < s->last; ++i) {
      if (holds(s->step(program_, i).dies, value)) return false;
    }
    return true;
  };
  std::vector<int> left;
  for (size_t i = 0; i < s->made.size(); ++i) {
    if (!made[i].set || !is_read(s->made[i])) continue;
    left.push_back(s->made[i]);
    s->results.push_back(made[i]);
  }
  s->made = left;
  return s->last - s->first >= kLeastSteps;
}

// Memory for a result: that of rows which nobody reads after the strip, entry by entry as long.
void Workspace::place(const Strip& s, int out, const Value& first) {
  int64_t shape[kMostDims];
  std::copy_n(first.shape, first.ndim, shape);
  shape[0] = s.rows;
  const int64_t row = first.count() / first.shape[0];
  for (size_t i = 0; !s.refuses && i < s.reads.size(); ++i) {
    Value& v = values_[static_cast<size_t>(s.reads[i])];
    bool ours = v.block >= 0 && s.cuts(v) && v.dtype == first.dtype && v.count() / s.rows == row &&
                blocks_.owner(v.block).use_count() == 1;
    // Who sees the same memory may read other rows of it.
    for (int other : s.reads)
      ours = ours && values_[static_cast<size_t>(other)].within != s.reads[i];
    bool dies = false;
    for (int at = s.first; ours && at < s.last; ++at)
      dies |= holds(s.step(program_, at).dies, s.reads[i]);
    if (!dies) continue;
    Value& made = values_[static_cast<size_t>(out)];
    made = first;
    made.owner.reset();
    std::copy_n(shape, first.ndim, made.shape);
    made.block = v.block;
    made.data = v.data;
    v.block = -1;
    return;
  }
  frame_.make(out, first.dtype, first.ndim, shape);
}

int Workspace::strip(int first, int last) {
  Strip s;
  s.first = first;
  s.last = last;
  if (!begin(&s)) return first;
  const int threads = frame_.threads;
  if (pause_ != nullptr) (*pause_)();
  std::exception_ptr error;
  try {
    if (!probe(&s)) return first;
  } catch (const PlanError&) {
    return first;  // the steps themselves say what is wrong, and where
  }
  for (size_t i = 0; i < s.made.size(); ++i) place(s, s.made[i], s.results[i]);
  const int64_t blocks = (s.rows + s.block - 1) / s.block;
  const int64_t tasks = threads <= 1 ? 1 : std::min(blocks, kTasks * threads);
  std::mutex lock;
  parallel_for(tasks, threads, [&](int64_t t) {
    try {
      Borrowed own(program_);
      own->frame_.threads = 1;
      const Stopped stopped(own.operator->(), stop_);
      for (int64_t b = blocks * t / tasks; b < blocks * (t + 1) / tasks; ++b) {
        const int64_t begin = b * s.block, end = std::min(s.rows, begin + s.block);
        own->lend(*this, s, begin, end);
        for (int i = first; i < s.last; ++i) {
          own->run_alone(s.step(program_, i));
          own->release(s.step(program_, i));
        }
        for (int out : s.made) {
          const Value& part = own->values_[static_cast<size_t>(out)];
          const Value& whole = values_[static_cast<size_t>(out)];
          const size_t bytes = static_cast<size_t>(part.count() * bytes_of(part.dtype));
          const int64_t row = whole.count() / s.rows * bytes_of(whole.dtype);
          if (bytes > 0) std::memcpy(whole.as<uint8_t>() + begin * row, part.data, bytes);
          own->release(out);
        }
      }
    } catch (...) {
      const std::lock_guard<std::mutex> guard(lock);
      if (error == nullptr) error = std::current_exception();
    }
  });
  if (error != nullptr) {
    for (int out : s.made) release(out);
    if (!s.refuses) std::rethrow_exception(error);
    return first;
  }
  for (int i = first; i < s.last; ++i) release(s.step(program_, i));
  cursor_ = std::max(cursor_, s.last);
  return s.last;
}

}  // namespace nodebits::plan
