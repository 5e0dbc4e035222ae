#include "run/changing.h"

#include <algorithm>
#include <cstring>

#include "run/schedule.h"

namespace nodebits {
namespace {

// Entries that a row gets at least when it grows, and bytes that are asked for at once.
constexpr int32_t kLeastRoom = 4;
constexpr size_t kBlock = size_t{1} << 20;
constexpr int64_t kAhead = 8;  // rows between a prefetch and its use
constexpr int64_t kMiss = 64;  // elementary steps that a cache miss is worth

}  // namespace

ChangingRows::ChangingRows(int64_t rows, const int64_t* indptr, const int32_t* entries,
                           bool weighted, const float* weight)
    : weighted_(weighted), rows_(static_cast<size_t>(rows)) {
  for (int64_t i = 0; i < rows; ++i) {
    const int64_t begin = indptr[i];
    const auto n = static_cast<int32_t>(indptr[i + 1] - begin);
    if (n == 0) continue;
    Row& row = rows_[static_cast<size_t>(i)];
    reserve(row, n);
    std::memcpy(row.entries, entries + begin, sizeof(int32_t) * static_cast<size_t>(n));
    if (weighted_) std::memcpy(row.weight, weight + begin, sizeof(float) * static_cast<size_t>(n));
    row.count = n;
    for (int32_t k = 0; k < n; ++k) row.own += row.entries[k] == i;
    entries_ += n;
  }
}

uint8_t* ChangingRows::memory(size_t bytes) {
  if (blocks_.empty() || left_ < bytes) {
    const size_t size = std::max(kBlock, bytes);
    blocks_.push_back(std::make_unique_for_overwrite<uint8_t[]>(size));
    left_ = size;
  }
  left_ -= bytes;
  // From the end, which needs no other number than what is left.
  return blocks_.back().get() + left_;
}

void ChangingRows::reserve(Row& row, int32_t room) {
  const size_t each = weighted_ ? 2 * sizeof(int32_t) : sizeof(int32_t);
  // Multiples of 8 bytes keep the next row aligned.
  const size_t bytes = (static_cast<size_t>(room) * each + 7) / 8 * 8;
  uint8_t* const place = memory(bytes);
  auto* const entries = reinterpret_cast<int32_t*>(place);
  auto* const weight = weighted_ ? reinterpret_cast<float*>(entries + room) : nullptr;
  if (row.count > 0) {
    std::memcpy(entries, row.entries, sizeof(int32_t) * static_cast<size_t>(row.count));
    if (weighted_) std::memcpy(weight, row.weight, sizeof(float) * static_cast<size_t>(row.count));
  }
  row.entries = entries;
  row.weight = weight;
  row.room = room;
}

void ChangingRows::append(const int64_t* row, const int64_t* entry, const float* weight,
                          int64_t n) {
  for (int64_t i = 0; i < n; ++i) {
    Row& to = rows_[static_cast<size_t>(row[i])];
    if (to.count == to.room) {
      const int64_t twice = std::max<int64_t>(kLeastRoom, int64_t{2} * to.room);
      reserve(to, static_cast<int32_t>(std::min<int64_t>(twice, INT32_MAX)));
    }
    to.entries[to.count] = static_cast<int32_t>(entry[i]);
    if (weighted_) to.weight[to.count] = weight[i];
    ++to.count;
    to.own += entry[i] == row[i];
  }
  entries_ += n;
}

int64_t ChangingRows::remove(const int64_t* row, const int64_t* entry, int64_t n, bool keep) {
  struct Removed {
    int32_t at;
    float weight;
  };
  std::vector<Removed> removed;
  removed.reserve(static_cast<size_t>(n));
  const auto undo = [&](int64_t count) {
    for (int64_t i = count; i-- > 0;) {
      const Removed& one = removed[static_cast<size_t>(i)];
      insert(row[i], one.at, static_cast<int32_t>(entry[i]), one.weight);
    }
  };
  for (int64_t i = 0; i < n; ++i) {
    Row& from = rows_[static_cast<size_t>(row[i])];
    const auto wanted = static_cast<int32_t>(entry[i]);
    int32_t at = from.count - 1;
    while (at >= 0 && from.entries[at] != wanted) --at;
    if (at < 0) {
      undo(i);
      return i;
    }
    removed.push_back({at, weighted_ ? from.weight[at] : 0.0f});
    const auto rest = static_cast<size_t>(from.count - at - 1);
    std::memmove(from.entries + at, from.entries + at + 1, sizeof(int32_t) * rest);
    if (weighted_) std::memmove(from.weight + at, from.weight + at + 1, sizeof(float) * rest);
    --from.count;
    from.own -= entry[i] == row[i];
  }
  if (keep)
    entries_ -= n;
  else
    undo(n);
  return -1;
}

void ChangingRows::insert(int64_t number, int32_t at, int32_t entry, float weight) {
  Row& row = rows_[static_cast<size_t>(number)];
  const auto rest = static_cast<size_t>(row.count - at);
  std::memmove(row.entries + at + 1, row.entries + at, sizeof(int32_t) * rest);
  row.entries[at] = entry;
  if (weighted_) {
    std::memmove(row.weight + at + 1, row.weight + at, sizeof(float) * rest);
    row.weight[at] = weight;
  }
  ++row.count;
  row.own += entry == number;
}

GatheredRows ChangingRows::gather(const int64_t* row, int64_t n, bool loops) const {
  GatheredRows made;
  made.indptr.resize(static_cast<size_t>(n) + 1);
  int64_t most = 0;
  for (int64_t i = 0; i < n; ++i) most += count(row[i]) + (loops ? 1 : 0);
  made.entries.resize(static_cast<size_t>(most));
  if (weighted_ && !loops) made.weight.resize(static_cast<size_t>(most));
  int64_t at = 0;
  for (int64_t i = 0; i < n; ++i) {
    const Row& from = rows_[static_cast<size_t>(row[i])];
    if (loops) {
      const auto own = static_cast<int32_t>(row[i]);
      for (int32_t k = 0; k < from.count; ++k)
        if (from.entries[k] != own) made.entries[static_cast<size_t>(at++)] = from.entries[k];
      made.entries[static_cast<size_t>(at++)] = own;
    } else if (from.count > 0) {
      const auto size = static_cast<size_t>(from.count);
      std::memcpy(made.entries.data() + at, from.entries, sizeof(int32_t) * size);
      if (weighted_) std::memcpy(made.weight.data() + at, from.weight, sizeof(float) * size);
      at += from.count;
    }
    made.indptr[static_cast<size_t>(i) + 1] = at;
  }
  made.entries.resize(static_cast<size_t>(at));
  return made;
}

void Marks::clear(int64_t size) {
  numbers_.clear();
  if (++now_ == 0) {
    std::fill(stamp_.begin(), stamp_.end(), 0);
    now_ = 1;
  }
  if (static_cast<size_t>(size) > stamp_.size()) {
    stamp_.resize(static_cast<size_t>(size), 0);
    place_.resize(static_cast<size_t>(size));
  }
}

bool Marks::add(int64_t number) {
  const auto i = static_cast<size_t>(number);
  if (stamp_[i] == now_) return false;
  stamp_[i] = now_;
  place_[i] = static_cast<int64_t>(numbers_.size());
  numbers_.push_back(number);
  return true;
}

int64_t Marks::place(int64_t number) const {
  const auto i = static_cast<size_t>(number);
  return i < stamp_.size() && stamp_[i] == now_ ? place_[i] : -1;
}

SumChange sum_change(const ChangingRows& out, bool loops, const int64_t* changed, int64_t n,
                     const Pairs& added, const Pairs& removed, Marks& marks) {
  marks.clear(out.rows());
  // Counted first, then filled: both go through the same edges.
  const auto each = [&](const auto& plus, const auto& minus) {
    for (int64_t i = 0; i < n; ++i) {
      const int64_t s = changed[i];
      const int32_t* const targets = out.begin(s);
      const int64_t count = out.count(s);
      for (int64_t k = 0; k < count; ++k) {
        if (loops && targets[k] == s) continue;
        plus(targets[k], i), minus(targets[k], n + i);
      }
      if (loops) plus(s, i), minus(s, n + i);
    }
    for (int64_t i = 0; i < added.n; ++i) plus(added.target[i], 2 * n + i);
    for (int64_t i = 0; i < removed.n; ++i) minus(removed.target[i], 2 * n + added.n + i);
  };
  std::vector<int64_t> more, less;
  const auto counted = [&](std::vector<int64_t>& into) {
    return [&](int64_t target, int64_t) {
      if (marks.add(target)) more.push_back(0), less.push_back(0);
      ++into[static_cast<size_t>(marks.place(target))];
    };
  };
  each(counted(more), counted(less));
  SumChange made;
  const auto begun = [](const std::vector<int64_t>& counts) {
    std::vector<int64_t> indptr(counts.size() + 1, 0);
    for (size_t i = 0; i < counts.size(); ++i) indptr[i + 1] = indptr[i] + counts[i];
    return indptr;
  };
  made.plus_indptr = begun(more), made.minus_indptr = begun(less);
  made.plus.resize(static_cast<size_t>(made.plus_indptr.back()));
  made.minus.resize(static_cast<size_t>(made.minus_indptr.back()));
  std::copy(made.plus_indptr.begin(), made.plus_indptr.end() - 1, more.begin());
  std::copy(made.minus_indptr.begin(), made.minus_indptr.end() - 1, less.begin());
  const auto filled = [&](std::vector<int64_t>& at, std::vector<int32_t>& into) {
    return [&](int64_t target, int64_t row) {
      const auto place = static_cast<size_t>(marks.place(target));
      into[static_cast<size_t>(at[place]++)] = static_cast<int32_t>(row);
    };
  };
  each(filled(more, made.plus), filled(less, made.minus));
  made.targets = marks.take();
  return made;
}

Rewritten rewrite(uint8_t* table, int64_t row_bytes, const int64_t* index, int64_t n,
                  const uint8_t* rows, int64_t first, bool keep, int threads) {
  const auto bytes = static_cast<size_t>(row_bytes);
  const int64_t work = row_bytes / 8 + kMiss;
  std::vector<uint8_t> differs(static_cast<size_t>(n));
  split_rows(n, work, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(table + index[i + kAhead] * row_bytes);
      const uint8_t* const there = table + index[i] * row_bytes;
      differs[static_cast<size_t>(i)] =
          index[i] >= first || std::memcmp(there, rows + i * row_bytes, bytes) != 0;
    }
  });
  Rewritten made;
  std::vector<int64_t> places;
  for (int64_t i = 0; i < n; ++i)
    if (differs[static_cast<size_t>(i)] != 0) places.push_back(i);
  const auto count = static_cast<int64_t>(places.size());
  made.index.resize(places.size());
  if (keep) made.old.resize(places.size() * bytes);
  split_rows(count, work, threads, [&](int64_t begin, int64_t end) {
    for (int64_t k = begin; k < end; ++k) {
      const int64_t i = places[static_cast<size_t>(k)];
      uint8_t* const there = table + index[i] * row_bytes;
      if (keep) std::memcpy(made.old.data() + k * row_bytes, there, bytes);
      std::memcpy(there, rows + i * row_bytes, bytes);
      made.index[static_cast<size_t>(k)] = index[i];
    }
  });
  return made;
}

void add_difference(int32_t* table, int64_t cols, const int64_t* index, int64_t n,
                    const int32_t* plus, const int32_t* minus, int32_t* out, int threads) {
  split_rows(n, cols + kMiss, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      if (i + kAhead < end) __builtin_prefetch(table + index[i + kAhead] * cols);
      auto* const row = reinterpret_cast<uint32_t*>(table + index[i] * cols);
      for (int64_t c = 0; c < cols; ++c) {
        // Modulo 2^32: what comes and goes may pass int32 where their sum does not.
        const auto come = static_cast<uint32_t>(plus[i * cols + c]);
        const auto gone = static_cast<uint32_t>(minus[i * cols + c]);
        out[i * cols + c] = static_cast<int32_t>(row[c] += come - gone);
      }
    }
  });
}

}  // namespace nodebits
