// Float rows that several steps pack are read once, and some are packed as they are made.
#pragma once

#include "plan/own_scale.h"
#include "plan/program.h"

namespace nodebits::plan {

// Packs rows with a scale of each row's own.
struct OwnPackStep final : Step {
  explicit OwnPackStep(Reader& r);
  void run(Frame& f) const override;

  In x;
  OwnCodes codes;
  int packed, scale;  // results
};

// A step whose float rows may be packed a few at a time: where `reader` is set, it makes the
// results of that step in place of its own, and that step finds them made.
struct RowsStep : Step {
  int floats = -1;  // its only result; -1: it makes others
  const OwnPackStep* reader = nullptr;
};

// A step whose only result, outs[0], is float rows where makes_floats; `work` also gets its reader.
template <class F>
struct RowsStepOf final : RowsStep {
  RowsStepOf(const std::vector<int>& outs, bool makes_floats, F f) : work(std::move(f)) {
    if (makes_floats) floats = outs[0];
  }
  void run(Frame& f) const override { work(f, reader); }
  F work;
};

template <class F>
StepPtr rows_step(const std::vector<int>& outs, bool makes_floats, F work) {
  return std::make_unique<RowsStepOf<F>>(outs, makes_floats, std::move(work));
}

// A neighbour sum whose rows are packed as they are made, with what `reader` makes of them.
void run_packed_rows(Frame& f, const OwnPackStep& reader, const SpmmArgs& sum, int64_t rows,
                     int64_t table_rows, const FusedArgs& a);

// The first step that packs some rows also packs them for later ones that need no more than is
// there by then, and looks on the way whether all values are finite where a step before it would.
// Rows that one step alone reads, and packs, are packed where they are made.
void join_packing(const Program& p);

}  // namespace nodebits::plan
