// Counting sort of a group's edges by block, group by group.
#include "run/edge_blocks.h"

#include <algorithm>
#include <cstring>
#include <vector>

#include "run/memory.h"
#include "run/pool.h"
#include "run/tiles.h"

namespace nodebits {
namespace {

constexpr int64_t kMagic = 0x31'6b'63'6f'6c'62'62'6e;  // "nbblock1"
constexpr int64_t kHeader = 6;
constexpr int64_t kLeastEdges = 1 << 20;
constexpr int64_t kLeastGroups = 8;      // tasks to share among threads
constexpr int64_t kEdgesPerSegment = 8;  // below which a segment's own cost outweighs what it saves
constexpr int64_t kRoomForSums = 1 << 20;  // a cache of this size holds sums beside a block
constexpr int64_t kLeastReads = 4;         // of a row of a block, for each time that it is loaded

void lay_out(const void* memory, EdgeBlocks* e) {
  const int64_t* words = static_cast<const int64_t*>(memory);
  e->group_start = words + kHeader;
  e->counts = reinterpret_cast<const int32_t*>(e->group_start + e->groups() + 1);
  e->local = reinterpret_cast<const uint16_t*>(e->counts + e->rows * e->blocks());
}

}  // namespace

EdgeBlocks plan_edge_blocks(int64_t rows, int64_t sources, int64_t edges, int64_t row_bytes) {
  EdgeBlocks plan;
  plan.rows = rows, plan.sources = sources, plan.edges = edges;
  const int64_t cache = core_cache_bytes();
  if (edges < kLeastEdges || row_bytes == 0 || sources * row_bytes <= cache) return plan;
  // Groups whose sums fit beside a block would be so small in a small cache that they read the rows
  // of a block once or twice before the next takes its place. There the block fills the cache, and
  // the sums of larger groups come from the outer one, in order, as prefetchers like it.
  const bool beside = cache >= kRoomForSums;
  const int64_t room = beside ? cache / 2 : 4 * cache;
  plan.group_rows = 256;
  while (2 * plan.group_rows * kSumBytes <= room &&
         (beside || rows >= kLeastGroups * 2 * plan.group_rows))
    plan.group_rows *= 2;
  if (rows < kLeastGroups * plan.group_rows) return plan;
  if (!beside && plan.group_rows * (edges / rows) < kLeastReads * sources) return plan;
  // Of longer rows one line is read at a time: see NeighborSum::cut.
  const int64_t row_cache = std::min<int64_t>(row_bytes, 64);
  const int64_t block = std::min<int64_t>(cache / 16 * (beside ? 7 : 12) / row_cache, 1 << 16);
  const int64_t blocks = (sources + block - 1) / block;
  if (edges / blocks / rows < kEdgesPerSegment) return plan;
  plan.block_rows = (sources + blocks - 1) / blocks;
  return plan;
}

size_t edge_blocks_bytes(const EdgeBlocks& plan) {
  return static_cast<size_t>(8 * (kHeader + plan.groups() + 1) + 4 * plan.rows * plan.blocks() +
                             2 * plan.edges);
}

void make_edge_blocks(const EdgeBlocks& plan, const int64_t* indptr, const int32_t* indices,
                      void* memory, int threads) {
  EdgeBlocks e = plan;
  lay_out(memory, &e);
  prefer_huge_pages(memory, edge_blocks_bytes(plan));
  int64_t* words = static_cast<int64_t*>(memory);
  const int64_t header[kHeader] = {kMagic, e.rows, e.sources, e.edges, e.group_rows, e.block_rows};
  std::copy(header, header + kHeader, words);
  const int64_t groups = e.groups(), blocks = e.blocks();
  for (int64_t g = 0; g <= groups; ++g)
    words[kHeader + g] = indptr[std::min(g * e.group_rows, e.rows)];
  const uint64_t divide = (uint64_t{1} << 48) / static_cast<uint64_t>(e.block_rows) + 1;
  parallel_for(groups, threads, [&](int64_t g) {
    const int64_t first = g * e.group_rows;
    const int64_t rows = std::min(e.rows - first, e.group_rows);
    int32_t* counts = const_cast<int32_t*>(e.counts) + first * blocks;
    uint16_t* local = const_cast<uint16_t*>(e.local);
    // For indices below 2^31 and at most 2^16 rows a block the multiplication divides exactly.
    const auto block_of = [&](int32_t source) {
      return static_cast<int64_t>(
          static_cast<unsigned __int128>(divide) * static_cast<uint32_t>(source) >> 48);
    };
    std::fill(counts, counts + rows * blocks, 0);
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = indptr[first + r]; i < indptr[first + r + 1]; ++i)
        ++counts[block_of(indices[i]) * rows + r];
    }
    std::vector<int64_t> next(static_cast<size_t>(rows * blocks));
    int64_t at = indptr[first];
    for (int64_t k = 0; k < rows * blocks; ++k) {
      next[static_cast<size_t>(k)] = at;
      at += counts[k];
    }
    for (int64_t r = 0; r < rows; ++r) {
      for (int64_t i = indptr[first + r]; i < indptr[first + r + 1]; ++i) {
        const int64_t b = block_of(indices[i]);
        local[next[static_cast<size_t>(b * rows + r)]++] =
            static_cast<uint16_t>(indices[i] - b * e.block_rows);
      }
    }
  });
}

bool view_edge_blocks(const void* memory, size_t bytes, int64_t rows, int64_t sources,
                      int64_t edges, EdgeBlocks* view) {
  const int64_t* words = static_cast<const int64_t*>(memory);
  if (bytes < 8 * kHeader || words[0] != kMagic) return false;
  EdgeBlocks e;
  e.rows = words[1], e.sources = words[2], e.edges = words[3];
  e.group_rows = words[4], e.block_rows = words[5];
  if (e.rows != rows || e.sources != sources || e.edges != edges || e.group_rows < 1 ||
      e.group_rows > kMostGroupRows || e.block_rows < 1 || e.block_rows > 1 << 16 ||
      edge_blocks_bytes(e) != bytes)
    return false;
  lay_out(memory, &e);
  *view = e;
  return true;
}

}  // namespace nodebits
