// A weight in the layouts of the levels: made when a plan is read, and kept with it.
#pragma once

#include <memory>

#include "plan/per_level.h"
#include "run/dispatch.h"
#include "run/tiles.h"

namespace nodebits::plan {

class Panels {
 public:
  // `weight` lives as long as this.
  explicit Panels(const WeightArgs& weight) : weight_(weight) { of(kernels()); }

  const WeightArgs& weight() const { return weight_; }

  const void* of(const Kernels& k) const {
    return panels_
        .of(k,
            [&] {
              auto panel = std::make_unique<Buffer>(k.panel_bytes(weight_));
              k.make_panel(weight_, panel->memory);
              return panel;
            })
        .memory;
  }

 private:
  WeightArgs weight_;
  PerLevel<Buffer> panels_;
};

}  // namespace nodebits::plan
