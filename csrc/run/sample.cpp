// Draws of neighbours, and the numbers that nodes get as they appear.
#include "run/sample.h"

#include <algorithm>

#include "run/schedule.h"

namespace nodebits {
namespace {

constexpr uint64_t kGolden = 0x9e3779b97f4a7c15;
constexpr int64_t kAhead = 16;       // entries between a prefetch and its use
constexpr int64_t kUnderWay = 2048;  // loads that are asked for before the first is used
constexpr int64_t kEdgeWork = 64;    // elementary steps that a draw and its cache miss are worth
constexpr int64_t kFewDraws = 48;    // up to which a list is searched faster than a table
constexpr size_t kKept = size_t{1} << 20;  // entries of a table that a thread keeps between calls

// The finalizer of splitmix64 (Steele, Lea and Flood 2014).
uint64_t mixed(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9;
  z = (z ^ (z >> 27)) * 0x94d049bb133111eb;
  return z ^ (z >> 31);
}

// Random numbers of one node in one hop, by their count.
class Draws {
 public:
  Draws(uint64_t hop_key, int64_t node)
      : key_(mixed(hop_key + kGolden * static_cast<uint64_t>(node))) {}
  // Evenly from [0, bound), but for a part in 2^64 / bound.
  int64_t below(int64_t bound, int64_t count) const {
    const uint64_t random = mixed(key_ + kGolden * (static_cast<uint64_t>(count) + 1));
    return static_cast<int64_t>((static_cast<unsigned __int128>(random) * bound) >> 64);
  }

 private:
  uint64_t key_;
};

// Numbers of keys, by open addressing. Its memory is kept by the thread, and as much of it is used
// as the keys of a call need.
class Table {
 public:
  // Empty, with room for so many keys.
  void clear(int64_t keys) {
    bits_ = 6;
    while (slots() < 2 * static_cast<size_t>(keys)) ++bits_;
    if (entries_.size() < slots()) entries_.resize(slots());
    std::fill_n(entries_.begin(), slots(), kEmpty);
  }

  // Makes room for so many keys in all.
  void reserve(int64_t keys) {
    if (2 * static_cast<size_t>(keys) <= slots()) return;
    const std::vector<uint64_t> before(entries_.data(), entries_.data() + slots());
    clear(keys);
    for (const uint64_t entry : before) {
      if (entry != kEmpty) entries_[place_of(static_cast<uint32_t>(entry >> 32))] = entry;
    }
  }

  // The number of a key, which is `number` if it is new.
  int32_t insert(int32_t key, int32_t number) {
    const auto wanted = static_cast<uint32_t>(key);
    uint64_t& entry = entries_[place_of(wanted)];
    if (entry == kEmpty)
      entry = static_cast<uint64_t>(wanted) << 32 | static_cast<uint32_t>(number);
    return static_cast<int32_t>(entry & 0xffffffff);
  }

  void prefetch(int32_t key) const {
    __builtin_prefetch(&entries_[first_place(static_cast<uint32_t>(key))], 1);
  }

  void give_back() {
    if (entries_.size() > kKept) std::vector<uint64_t>().swap(entries_);
  }

 private:
  // Keys are not negative, so that no entry is this.
  static constexpr uint64_t kEmpty = ~uint64_t{0};

  size_t slots() const { return size_t{1} << bits_; }
  size_t first_place(uint32_t key) const { return (key * kGolden) >> (64 - bits_); }
  // Where a key is, or would be.
  size_t place_of(uint32_t key) const {
    size_t at = first_place(key);
    while (entries_[at] != kEmpty && entries_[at] >> 32 != key) at = (at + 1) & (slots() - 1);
    return at;
  }

  std::vector<uint64_t> entries_;
  int bits_ = 6;
};

thread_local Table numbers_of_nodes;
thread_local Table drawn_places;

// `take` of `degree` places without a repetition, each set of them equally likely (Floyd, in
// Bentley 1987): of the first n places, the n-th draw gives one that is free or the n-th itself.
void draw_distinct(const Draws& draws, int64_t degree, int64_t take, int64_t* places) {
  if (take <= kFewDraws) {
    for (int64_t t = 0; t < take; ++t) {
      const int64_t last = degree - take + t;
      const int64_t place = draws.below(last + 1, t);
      bool found = false;
      for (int64_t i = 0; i < t; ++i) found |= places[i] == place;
      places[t] = found ? last : place;
    }
    return;
  }
  Table& taken = drawn_places;
  taken.clear(take);
  for (int64_t t = 0; t < take; ++t) {
    const int64_t last = degree - take + t;
    const int64_t place = draws.below(last + 1, t);
    const int32_t number = static_cast<int32_t>(t);
    // A place that is found keeps its first number; `last` is beyond all that were drawn.
    const bool free = taken.insert(static_cast<int32_t>(place), number) == number;
    places[t] = free ? place : last;
    if (!free) taken.insert(static_cast<int32_t>(last), number);
  }
  taken.give_back();
}

int64_t taken_of(int64_t degree, int64_t fanout, bool replace) {
  if (fanout < 0 || degree == 0) return degree;
  return replace ? fanout : std::min(degree, fanout);
}

// Places of `take` edges of a node.
void draw_row(const Sampled& from, int64_t fanout, const Draws& draws, int64_t node, int64_t take,
              int64_t* places) {
  const int64_t start = from.indptr[node], degree = from.indptr[node + 1] - start;
  if (take > 0 && from.replace && fanout >= 0) {
    for (int64_t t = 0; t < take; ++t) places[t] = draws.below(degree, t);
  } else if (take == degree) {
    for (int64_t t = 0; t < take; ++t) places[t] = t;
  } else {
    draw_distinct(draws, degree, take, places);
  }
  for (int64_t t = 0; t < take; ++t) {
    places[t] += start;
    __builtin_prefetch(from.indices + places[t]);
  }
}

// Edges of the nodes [begin, end), one hop further: their places, and their sources by the numbers
// of the whole graph.
void follow(const Sampled& from, int64_t hop, int64_t begin, int64_t end, int threads,
            Neighborhood& made) {
  const int64_t fanout = from.fanouts[hop];
  const uint64_t key = mixed(from.seed + kGolden * (static_cast<uint64_t>(hop) + 1));
  const int64_t* nodes = made.nodes.data();
  made.indptr.resize(static_cast<size_t>(end) + 1);
  int64_t* indptr = made.indptr.data();
  split_rows(end - begin, kEdgeWork, threads, [&](int64_t first, int64_t last) {
    for (int64_t i = begin + first; i < begin + last; ++i) {
      if (i + kAhead < end) __builtin_prefetch(from.indptr + nodes[i + kAhead]);
      const int64_t degree = from.indptr[nodes[i] + 1] - from.indptr[nodes[i]];
      indptr[i + 1] = taken_of(degree, fanout, from.replace);
    }
  });
  for (int64_t i = begin; i < end; ++i) indptr[i + 1] += indptr[i];
  made.edges.resize(static_cast<size_t>(indptr[end]));
  made.indices.resize(static_cast<size_t>(indptr[end]));
  int64_t* edges = made.edges.data();
  int32_t* sources = made.indices.data();
  const int64_t per_row = end > begin ? (indptr[end] - indptr[begin]) / (end - begin) + 1 : 1;
  split_rows(end - begin, kEdgeWork * per_row, threads, [&](int64_t first, int64_t last) {
    int64_t loaded = indptr[begin + first];
    for (int64_t i = begin + first; i < begin + last; ++i) {
      draw_row(from, fanout, Draws(key, nodes[i]), nodes[i], indptr[i + 1] - indptr[i],
               edges + indptr[i]);
      // Loads of many rows are under way before the first is waited for.
      if (indptr[i + 1] - loaded < kUnderWay && i + 1 < begin + last) continue;
      for (; loaded < indptr[i + 1]; ++loaded) sources[loaded] = from.indices[edges[loaded]];
    }
  });
}

}  // namespace

Neighborhood sample_neighbors(const Sampled& from, int threads) {
  Neighborhood made;
  Table& numbers = numbers_of_nodes;
  numbers.clear(0);
  const auto reserve = [&](int64_t more) {
    const int64_t all = static_cast<int64_t>(made.nodes.size()) + more;
    numbers.reserve(std::min(all, from.num_nodes));
    made.nodes.reserve(static_cast<size_t>(std::min(all, from.num_nodes)));
  };
  const auto number_of = [&](int32_t node) {
    const auto next = static_cast<int32_t>(made.nodes.size());
    const int32_t number = numbers.insert(node, next);
    if (number == next) made.nodes.push_back(node);
    return number;
  };
  reserve(from.num_seeds);
  made.seeds.reserve(static_cast<size_t>(from.num_seeds));
  for (int64_t i = 0; i < from.num_seeds; ++i)
    made.seeds.push_back(number_of(static_cast<int32_t>(from.seeds[i])));
  made.indptr.push_back(0);
  made.reached.push_back(static_cast<int64_t>(made.nodes.size()));
  int64_t begin = 0;
  for (int64_t hop = 0; hop < from.hops; ++hop) {
    const auto end = static_cast<int64_t>(made.nodes.size());
    follow(from, hop, begin, end, threads, made);
    const int64_t first = made.indptr[static_cast<size_t>(begin)];
    const auto last = static_cast<int64_t>(made.indices.size());
    reserve(last - first);
    int32_t* sources = made.indices.data();
    for (int64_t e = first; e < last; ++e) {
      if (e + kAhead < last) numbers.prefetch(sources[e + kAhead]);
      sources[e] = number_of(sources[e]);
    }
    made.reached.push_back(static_cast<int64_t>(made.nodes.size()));
    begin = end;
  }
  // Nodes of the last hop are no targets.
  made.indptr.resize(made.nodes.size() + 1, made.indptr.back());
  numbers.give_back();
  return made;
}

}  // namespace nodebits
