// Bit by bit: contents are some ten kilobytes, read once per load.
#include "capi/inflate.h"

#include <array>
#include <cstdint>

namespace nodebits {
namespace {

constexpr int kMostBits = 15, kLengths = 286, kDistances = 30, kEnd = 256;

struct Broken {};

class Bits {
 public:
  explicit Bits(std::string_view data) : data_(data) {}

  int take(int count) {
    int value = 0;
    for (int i = 0; i < count; ++i, ++at_) {
      if (at_ / 8 >= data_.size()) throw Broken{};
      value |= (uint8_t(data_[at_ / 8]) >> (at_ % 8) & 1) << i;
    }
    return value;
  }

  // The bytes from the next whole one on.
  std::string_view bytes(size_t count) {
    const size_t begin = (at_ + 7) / 8;
    if (count > data_.size() - begin) throw Broken{};
    at_ = 8 * (begin + count);
    return data_.substr(begin, count);
  }

  size_t used() const { return (at_ + 7) / 8; }

 private:
  std::string_view data_;
  size_t at_ = 0;  // in bits
};

// A canonical Huffman code, given by the length of every symbol's word.
class Code {
 public:
  // `alone`: a single word of one bit may be all there is, and so may nothing.
  Code(const uint8_t* lengths, int count, bool alone) {
    for (int i = 0; i < count; ++i) ++words_[lengths[i]];
    words_[0] = 0;
    int left = 1, longest = 0;
    for (int length = 1; length <= kMostBits; ++length) {
      left = 2 * left - words_[size_t(length)];
      if (left < 0) throw Broken{};
      if (words_[size_t(length)] > 0) longest = length;
    }
    if (left > 0 && !(alone && longest <= 1)) throw Broken{};
    std::array<int, kMostBits + 2> next{};
    for (size_t length = 1; length <= kMostBits; ++length)
      next[length + 1] = next[length] + words_[length];
    for (int i = 0; i < count; ++i) {
      if (lengths[i] != 0) symbols_[size_t(next[lengths[i]]++)] = uint16_t(i);
    }
  }

  int read(Bits& bits) const {
    int word = 0, first = 0, at = 0;
    for (size_t length = 1; length <= kMostBits; ++length) {
      word = 2 * word + bits.take(1);
      const int count = words_[length];
      if (word - first < count) return symbols_[size_t(at + word - first)];
      at += count;
      first = 2 * (first + count);
    }
    throw Broken{};
  }

 private:
  std::array<int, kMostBits + 1> words_{};
  std::array<uint16_t, 288> symbols_{};
};

struct Codes {
  Code symbols, distances;
};

Codes fixed_codes() {
  uint8_t lengths[288], distances[32];
  for (int i = 0; i < 288; ++i) lengths[i] = i < 144 ? 8 : i < 256 ? 9 : i < 280 ? 7 : 8;
  // Two of the words of five bits stand for no distance, as two of the others for no length.
  for (uint8_t& length : distances) length = 5;
  return {Code(lengths, 288, false), Code(distances, 32, false)};
}

Codes read_codes(Bits& bits) {
  constexpr int kOrder[] = {16, 17, 18, 0, 8, 7, 9, 6, 10, 5, 11, 4, 12, 3, 13, 2, 14, 1, 15};
  const int symbols = bits.take(5) + 257, distances = bits.take(5) + 1, given = bits.take(4) + 4;
  if (symbols > kLengths || distances > kDistances) throw Broken{};
  uint8_t lengths[kLengths + kDistances] = {};
  for (int i = 0; i < given; ++i) lengths[kOrder[i]] = uint8_t(bits.take(3));
  const Code of_lengths(lengths, 19, false);
  for (int i = 0; i < 19; ++i) lengths[i] = 0;
  for (int i = 0; i < symbols + distances;) {
    const int symbol = of_lengths.read(bits);
    if (symbol < 16) {
      lengths[i++] = uint8_t(symbol);
      continue;
    }
    if (symbol == 16 && i == 0) throw Broken{};
    const uint8_t again = symbol == 16 ? lengths[i - 1] : 0;
    int count = symbol == 16   ? 3 + bits.take(2)
                : symbol == 17 ? 3 + bits.take(3)
                               : 11 + bits.take(7);
    if (count > symbols + distances - i) throw Broken{};
    while (count-- > 0) lengths[i++] = again;
  }
  if (lengths[kEnd] == 0) throw Broken{};
  return {Code(lengths, symbols, true), Code(lengths + symbols, distances, true)};
}

// A symbol from 257 on is a length, the least of its class and some bits more; so is a distance.
int length_of(int symbol, Bits& bits) {
  const int at = symbol - 257;
  if (at < 8) return 3 + at;
  if (at == 28) return 258;
  const int more = at / 4 - 1;
  return 3 + ((4 + at % 4) << more) + bits.take(more);
}

size_t distance_of(int symbol, Bits& bits) {
  if (symbol < 4) return size_t(symbol) + 1;
  const int more = symbol / 2 - 1;
  return size_t(1 + ((2 + symbol % 2) << more) + bits.take(more));
}

class Inflating {
 public:
  Inflating(std::string_view deflated, size_t bytes, std::string& to)
      : bits_(deflated), bytes_(bytes), to_(to) {}

  size_t run() {
    for (bool last = false; !last;) {
      last = bits_.take(1) == 1;
      const int kind = bits_.take(2);
      if (kind == 0) {
        stored();
      } else if (kind == 3) {
        throw Broken{};
      } else {
        coded(kind == 1 ? fixed_codes() : read_codes(bits_));
      }
    }
    if (to_.size() != bytes_) throw Broken{};
    return bits_.used();
  }

 private:
  void need(size_t more) const {
    if (more > bytes_ - to_.size()) throw Broken{};
  }

  void stored() {
    const std::string_view sizes = bits_.bytes(4);
    const auto byte = [&](size_t i) { return size_t(uint8_t(sizes[i])); };
    const size_t count = byte(0) | byte(1) << 8;
    if ((count ^ (byte(2) | byte(3) << 8)) != 0xFFFF) throw Broken{};
    need(count);
    to_ += bits_.bytes(count);
  }

  void coded(const Codes& codes) {
    for (;;) {
      const int symbol = codes.symbols.read(bits_);
      if (symbol == kEnd) return;
      if (symbol < kEnd) {
        need(1);
        to_ += char(uint8_t(symbol));
        continue;
      }
      if (symbol >= kLengths) throw Broken{};
      const auto length = size_t(length_of(symbol, bits_));
      const int far = codes.distances.read(bits_);
      if (far >= kDistances) throw Broken{};
      const size_t distance = distance_of(far, bits_);
      if (distance > to_.size()) throw Broken{};
      need(length);
      // What is copied may go on in what the copy has made.
      for (size_t i = 0; i < length; ++i) to_ += to_[to_.size() - distance];
    }
  }

  Bits bits_;
  size_t bytes_;
  std::string& to_;
};

}  // namespace

bool inflate(std::string_view deflated, size_t bytes, std::string* text, size_t* used) {
  text->clear();
  text->reserve(bytes);
  try {
    *used = Inflating(deflated, bytes, *text).run();
  } catch (const Broken&) {
    return false;
  }
  return true;
}

}  // namespace nodebits
