// A weight in the layouts of the levels: made when a plan is read, and kept with it.
#pragma once

#include <atomic>
#include <memory>
#include <mutex>
#include <vector>

#include "contract/kernels.h"
#include "run/dispatch.h"
#include "run/tiles.h"

namespace nodebits::plan {

class Panels {
 public:
  // `weight` lives as long as this.
  explicit Panels(const WeightArgs& weight) : weight_(weight) { of(kernels()); }

  const WeightArgs& weight() const { return weight_; }

  const void* of(const Kernels& k) const {
    const Panel* known = latest_.load(std::memory_order_acquire);
    if (known != nullptr && known->kernels == &k) return known->memory.memory;
    const std::lock_guard<std::mutex> guard(lock_);
    for (const auto& panel : panels_) {
      if (panel->kernels != &k) continue;
      latest_.store(panel.get(), std::memory_order_release);
      return panel->memory.memory;
    }
    auto made = std::make_unique<Panel>(&k, k.panel_bytes(weight_));
    k.make_panel(weight_, made->memory.memory);
    latest_.store(made.get(), std::memory_order_release);
    panels_.push_back(std::move(made));
    return panels_.back()->memory.memory;
  }

 private:
  struct Panel {
    Panel(const Kernels* k, size_t bytes) : kernels(k), memory(bytes) {}
    const Kernels* kernels;
    Buffer memory;
  };
  WeightArgs weight_;
  mutable std::mutex lock_;
  mutable std::vector<std::unique_ptr<Panel>> panels_;
  mutable std::atomic<const Panel*> latest_{nullptr};
};

}  // namespace nodebits::plan
