// What a level of instructions made of constants of a plan: made at the first call of the level.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "contract/kernels.h"

namespace nodebits::plan {

template <class T>
class PerLevel {
 public:
  // What `make`, which returns a std::unique_ptr, made for these kernels; it stays where it is.
  template <class F>
  const T& of(const Kernels& k, const F& make) const {
    const Entry* known = latest_.load(std::memory_order_acquire);
    if (known != nullptr && known->kernels == &k) return *known->value;
    const std::lock_guard<std::mutex> guard(lock_);
    for (const auto& entry : entries_) {
      if (entry->kernels != &k) continue;
      latest_.store(entry.get(), std::memory_order_release);
      return *entry->value;
    }
    entries_.push_back(std::make_unique<Entry>(Entry{&k, make()}));
    latest_.store(entries_.back().get(), std::memory_order_release);
    return *entries_.back()->value;
  }

 private:
  struct Entry {
    const Kernels* kernels;
    std::unique_ptr<const T> value;
  };
  mutable std::mutex lock_;
  mutable std::vector<std::unique_ptr<const Entry>> entries_;
  mutable std::atomic<const Entry*> latest_{nullptr};
};

}  // namespace nodebits::plan
