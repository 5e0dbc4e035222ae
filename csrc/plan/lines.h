// Codes as lines in integer sums (CodeLine), for steps whose epilogue and quantizers depend on the
// column alone.
//
// All that happens to a sum is monotone: conversion, products with constants, sums with constants,
// the rectifier, rounding. So the code of a column is a staircase in its sum, and so is a line that
// is rounded and cut off. Two staircases are the same where their steps are, which takes two sums
// per step to see: the last one before it, and its first. The level's own kernel says what the
// codes of these are, and then whether the line gives the same. Where it does not, nothing is known
// of the step, and it runs as it is written.
//
// Sums of neighbours that are below kLineSums are so few that all of them are looked at, with every
// code that the row itself may add. The column that gave a tensor its range often has a sum halfway
// between two codes, which then depends on what was added to what: its codes become a table.
#pragma once

#include <vector>

#include "plan/per_level.h"

namespace nodebits::plan {

// Whole blocks of columns.
struct LineColumns {
  std::vector<float> slope, start;
  std::vector<uint8_t> least;

  explicit LineColumns(int64_t cols);
  CodeLine line() const { return {slope.data(), start.data(), least.data()}; }
};

class ProductLines {
 public:
  // Lines of all outputs, for sums in [low, high]; null where nothing is known. Of `a` is read what
  // does not depend on the row; later calls must be of the same constants.
  const CodeLine* of(const Kernels& k, const FusedArgs& a, int64_t low, int64_t high) const;

 private:
  struct Found {
    std::vector<LineColumns> columns;
    std::vector<CodeLine> lines;  // empty: nothing is known
  };
  PerLevel<Found> found_;
};

class SumLines {
 public:
  // Fills in how sums of codes of `bits`, with the row's own one where `own`, become codes; false
  // where nothing is known. Of `a` as above, with one output.
  bool fill(const Kernels& k, const FusedArgs& a, int bits, bool own, SumLineArgs* to) const;

 private:
  struct Found {
    explicit Found(int64_t cols) : columns(cols) {}
    bool known = false;
    LineColumns columns;
    std::vector<int32_t> looked_up;
    std::vector<std::vector<uint8_t>> codes;
  };
  PerLevel<Found> found_;
};

}  // namespace nodebits::plan
