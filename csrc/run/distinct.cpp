// Every task numbers its own rows; the numbers of the first task come first.
#include "run/distinct.h"

#include <atomic>
#include <cstring>
#include <vector>

#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr int64_t kSlots = 4 * kMostDistinct;
constexpr int64_t kBetweenLooks = 1024;  // rows, after which a task looks whether others gave up

uint64_t mixed(uint64_t h) {
  h ^= h >> 29;
  h *= 0x9e3779b97f4a7c15u;
  return h ^ (h >> 32);
}

// Four chains: one would wait for every product.
uint64_t hash_of(const uint8_t* row, int64_t bytes) {
  constexpr uint64_t kFactor = 0xd6e8feb86659fd93u;
  uint64_t h[4] = {1, 2, 3, 4};
  int64_t at = 0;
  for (; at + 32 <= bytes; at += 32) {
    uint64_t word[4];
    std::memcpy(word, row + at, 32);
    for (int i = 0; i < 4; ++i) h[i] = (h[i] ^ word[i]) * kFactor, h[i] ^= h[i] >> 32;
  }
  for (; at < bytes; at += 4) {
    uint32_t word;
    std::memcpy(&word, row + at, 4);
    h[0] = (h[0] ^ word) * kFactor, h[0] ^= h[0] >> 32;
  }
  return mixed(h[0] + 3 * h[1] + 5 * h[2] + 7 * h[3]);
}

class Numbers {
 public:
  Numbers(const uint8_t* rows, int64_t bytes, int64_t most)
      : rows_(rows), bytes_(bytes), most_(most) {}

  // The number of what row i holds; -1 where there is no more room.
  int number(int64_t i) {
    const uint8_t* row = rows_ + i * bytes_;
    for (uint64_t at = hash_of(row, bytes_);; ++at) {
      int16_t& slot = slots_[at % kSlots];
      if (slot == 0) {
        if (count_ == most_) return -1;
        firsts_[count_++] = i;
        return (slot = static_cast<int16_t>(count_)) - 1;
      }
      if (std::memcmp(rows_ + firsts_[slot - 1] * bytes_, row, static_cast<size_t>(bytes_)) == 0)
        return slot - 1;
    }
  }
  int64_t count() const { return count_; }
  const int64_t* firsts() const { return firsts_; }

 private:
  const uint8_t* rows_;
  int64_t bytes_, most_, count_ = 0;
  int16_t slots_[kSlots] = {};  // numbers plus one
  int64_t firsts_[kMostDistinct];
};

struct Task {
  int64_t begin = 0, end = 0;
  std::vector<int64_t> firsts;
};

}  // namespace

int64_t number_distinct(const uint8_t* rows, int64_t count, int64_t bytes, int64_t most,
                        int threads, uint8_t* numbers, int64_t* firsts) {
  const int64_t many = task_count(count * (bytes / 8 + 4), count, threads);
  std::vector<Task> tasks(static_cast<size_t>(many));
  std::atomic<bool> too_many{false};
  parallel_for(many, threads, [&](int64_t t) {
    Task& task = tasks[static_cast<size_t>(t)];
    task.begin = count / many * t + std::min(t, count % many);
    task.end = task.begin + count / many + (t < count % many ? 1 : 0);
    Numbers own(rows, bytes, most);
    for (int64_t i = task.begin; i < task.end; ++i) {
      if (i % kBetweenLooks == 0 && too_many.load(std::memory_order_relaxed)) return;
      const int number = own.number(i);
      if (number < 0) return too_many.store(true, std::memory_order_relaxed);
      numbers[i] = static_cast<uint8_t>(number);
    }
    task.firsts.assign(own.firsts(), own.firsts() + own.count());
  });
  if (too_many.load()) return -1;
  Numbers all(rows, bytes, most);
  std::vector<uint8_t> renamed(static_cast<size_t>(many * kMostDistinct));
  for (int64_t t = 0; t < many; ++t) {
    uint8_t* to = renamed.data() + t * kMostDistinct;
    for (const int64_t first : tasks[static_cast<size_t>(t)].firsts) {
      const int number = all.number(first);
      if (number < 0) return -1;
      *to++ = static_cast<uint8_t>(number);
    }
  }
  parallel_for(many, threads, [&](int64_t t) {
    const Task& task = tasks[static_cast<size_t>(t)];
    const uint8_t* to = renamed.data() + t * kMostDistinct;
    for (int64_t i = task.begin; i < task.end; ++i) numbers[i] = to[numbers[i]];
  });
  std::copy_n(all.firsts(), all.count(), firsts);
  return all.count();
}

}  // namespace nodebits
