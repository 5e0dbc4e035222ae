// Bytes of fields through tables of 256.
#include "run/recode.h"

#include <array>

#include "contract/codings.h"
#include "contract/rows.h"
#include "run/schedule.h"

namespace nodebits {
namespace {

using Table = std::array<uint8_t, 256>;

// A field that stands for no code becomes anything.
template <class C, int B>
constexpr Table table_of() {
  Table made{};
  for (int byte = 0; byte < 256; ++byte) {
    const int numbers = C::template numbers<B>(Byte{static_cast<uint8_t>(byte)}).v;
    int codes = 0;
    for (int shift = 0; shift < 8; shift += B)
      codes |= (((numbers >> shift) - C::kAbove) & ((1 << B) - 1)) << shift;
    made[static_cast<size_t>(byte)] = static_cast<uint8_t>(codes);
  }
  return made;
}

template <class C, int B>
const Table* table_in() {
  if constexpr (C::has(B)) {
    static constexpr Table kTable = table_of<C, B>();
    return &kTable;
  }
  return nullptr;
}

const Table* table(int coding, int bits) {
  const Table* found = nullptr;
  with_coding(coding, [&]<class C>() {
    found = bits == 1   ? table_in<C, 1>()
            : bits == 2 ? table_in<C, 2>()
            : bits == 4 ? table_in<C, 4>()
                        : table_in<C, 8>();
  });
  return found;
}

}  // namespace

std::vector<const char*> coding_names() {
  std::vector<const char*> names;
  for (int coding = 0; coding < kCodings; ++coding)
    with_coding(coding, [&]<class C>() { names.push_back(C::kName); });
  return names;
}

bool has_coding(int coding, int bits) {
  bool has = false;
  with_coding(coding, [&]<class C>() { has = C::has(bits); });
  return has;
}

std::unique_ptr<Buffer> recoded(const uint8_t* packed, int64_t rows, int64_t num_cols, int bits,
                                int coding, int threads) {
  if (coding == 0) return nullptr;
  const int64_t stride = packed_row_bytes(num_cols, bits);
  const uint8_t used = static_cast<uint8_t>((2 << ((num_cols * bits + 7) % 8)) - 1);
  auto made = std::make_unique<Buffer>(static_cast<size_t>(rows * stride));
  const Table& codes = *table(coding, bits);
  split_rows(rows, stride, threads, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin * stride; i < end * stride; ++i) made->memory[i] = codes[packed[i]];
    for (int64_t r = begin; r < end && stride > 0; ++r) made->memory[(r + 1) * stride - 1] &= used;
  });
  return made;
}

}  // namespace nodebits
