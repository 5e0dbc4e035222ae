// Compressed rows that grow and shrink: an adjacency under updates.
#pragma once

#include <cstdint>
#include <memory>
#include <vector>

namespace nodebits {

// Some rows as plain compressed ones.
struct GatheredRows {
  std::vector<int64_t> indptr;
  std::vector<int32_t> entries;
  std::vector<float> weight;  // empty without weights
};

// Each row keeps its entries in the order in which they came, with room to grow: an entry costs as
// much in a row of a million as in one of three. Arguments were checked before.
class ChangingRows {
 public:
  // `weight` is not read without `weighted`, and may be null where there are no entries yet.
  ChangingRows(int64_t rows, const int64_t* indptr, const int32_t* entries, bool weighted,
               const float* weight);

  int64_t rows() const { return static_cast<int64_t>(rows_.size()); }
  int64_t entries() const { return entries_; }
  bool weighted() const { return weighted_; }
  int64_t count(int64_t row) const { return rows_[static_cast<size_t>(row)].count; }
  // Entries as gather gives them.
  int64_t count(int64_t row, bool loops) const {
    const Row& of = rows_[static_cast<size_t>(row)];
    return loops ? int64_t{of.count} - of.own + 1 : of.count;
  }
  const int32_t* begin(int64_t row) const { return rows_[static_cast<size_t>(row)].entries; }

  // Rows without entries, behind those that there are.
  void extend(int64_t more) { rows_.resize(rows_.size() + static_cast<size_t>(more)); }

  // One entry at the end of each named row, which may be named again.
  void append(const int64_t* row, const int64_t* entry, const float* weight, int64_t n);

  // Takes the last entry of that value out of each named row, and returns -1; where one is not
  // there its position in the arguments, and nothing is changed. Without `keep` they come back.
  int64_t remove(const int64_t* row, const int64_t* entry, int64_t n, bool keep);

  // Named rows; with `loops` without entries of their own number, which comes last instead.
  GatheredRows gather(const int64_t* row, int64_t n, bool loops) const;

 private:
  struct Row {
    int32_t* entries = nullptr;
    float* weight = nullptr;
    int32_t count = 0, room = 0;
    int32_t own = 0;  // entries of the row's own number
  };

  void reserve(Row& row, int32_t room);
  void insert(int64_t number, int32_t at, int32_t entry, float weight);
  uint8_t* memory(size_t bytes);

  bool weighted_;
  int64_t entries_ = 0;
  std::vector<Row> rows_;
  // Rows move to a larger place and never back, so that their old ones are less than half of all.
  std::vector<std::unique_ptr<uint8_t[]>> blocks_;
  size_t left_ = 0;
};

// Which numbers were seen: a set that is emptied at no cost.
class Marks {
 public:
  // Forgets all, for numbers below `size`.
  void clear(int64_t size);
  // Whether a number is new; it then gets the next place.
  bool add(int64_t number);
  // The place of a number, -1 where it is new.
  int64_t place(int64_t number) const;
  std::vector<int64_t> take() { return std::move(numbers_); }
  const std::vector<int64_t>& numbers() const { return numbers_; }

 private:
  uint32_t now_ = 0;
  std::vector<uint32_t> stamp_;
  std::vector<int64_t> place_;
  std::vector<int64_t> numbers_;
};

// Edges by source and target.
struct Pairs {
  const int64_t* source;
  const int64_t* target;
  int64_t n;
};

// What a change adds to the sums of targets and what it takes away, each as compressed rows over a
// table that holds, one after another: the changed sources as they are, as they were, the sources
// of added edges and those of removed ones as they were.
struct SumChange {
  std::vector<int64_t> targets;
  std::vector<int64_t> plus_indptr, minus_indptr;
  std::vector<int32_t> plus, minus;
};

// `out` holds the targets of every source, after the change; `loops` as ChangingRows::gather.
SumChange sum_change(const ChangingRows& out, bool loops, const int64_t* changed, int64_t n,
                     const Pairs& added, const Pairs& removed, Marks& marks);

// Rows of a table that differ from what stands there are written; returns their places in `index`,
// which names each row once. Rows from `first` on count as differing.
struct Rewritten {
  std::vector<int64_t> index;  // rows of the table that were written
  std::vector<uint8_t> old;    // their bytes before; empty without `keep`
};
Rewritten rewrite(uint8_t* table, int64_t row_bytes, const int64_t* index, int64_t n,
                  const uint8_t* rows, int64_t first, bool keep, int threads);

// table[index[i]] += plus[i] - minus[i], whose results are also `out`; `index` names each row once.
void add_difference(int32_t* table, int64_t cols, const int64_t* index, int64_t n,
                    const int32_t* plus, const int32_t* minus, int32_t* out, int threads);

}  // namespace nodebits
