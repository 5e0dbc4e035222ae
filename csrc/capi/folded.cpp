// Files of models of version 4 (docs/format.md, "A model"): contents are deflated, as the first
// tensor, and the second holds the small tensors one after another. Others have neither.
#include <algorithm>
#include <utility>

#include "capi/checksums.h"
#include "capi/file.h"
#include "capi/inflate.h"
#include "capi/tensors.h"
#include "capi/text.h"
#include "plan/json_reader.h"

namespace nodebits {
namespace {

constexpr const char *kContents = ".contents", *kSmall = ".small";
// Both are filled up with zeros to a multiple of this.
constexpr size_t kAligned = 8;
// Contents may be as long as the file, and this long in any (runtime/folded.py has the same).
constexpr size_t kFree = size_t{1} << 20;

bool is_filling(std::string_view bytes) {
  return bytes.size() < kAligned &&
         std::all_of(bytes.begin(), bytes.end(), [](char c) { return c == 0; });
}

}  // namespace

void StoredFile::unfold() {
  const Stored first = folded_bytes(kContents, 0);
  const Stored all = folded_bytes(kSmall, first.end);
  // They say what the file is, so they are compared whatever else is left out.
  check_bytes(kContents, first);
  const std::string text = contents(bytes_of(first));
  // One object of two: names that stand in both are found where its entries are read.
  header_ = header_.substr(0, header_.rfind('}')) + ',' + text.substr(text.find('{') + 1);
  read_entries();
  if (entry("small").empty()) damaged("its contents have no table of small tensors");
  try {
    read_small(all);
  } catch (const JsonError& error) {
    damaged(std::string("its table of small tensors (") + error.what() + ")");
  }
}

Stored StoredFile::folded_bytes(const char* name, int64_t begin) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end() || found->second.begin != begin)
    damaged("its first tensors are not " + quoted(kContents) + " and " + quoted(kSmall));
  const Stored& stored = found->second;
  if (kTypes[stored.type].plan != int(DType::u8) || stored.shape.size() != 1)
    damaged("tensor " + quoted(name) + " is not bytes");
  return stored;
}

std::string StoredFile::contents(std::string_view deflated) const {
  if (entry("contents").empty()) damaged("its header does not say how long the contents are");
  const int64_t length = JsonReader(entry("contents")).integer();
  if (length > static_cast<int64_t>(std::max(kFree, bytes_.view.size())))
    damaged("its contents have " + std::to_string(length) + " bytes, more than the file may hold");
  std::string text;
  size_t used = 0;
  if (!inflate(deflated, size_t(length), &text, &used))
    damaged("its contents are not " + std::to_string(length) + " bytes that were deflated");
  if (!is_filling(deflated.substr(used))) damaged(quoted(kContents) + " has bytes behind its end");
  if (!valid_utf8(text)) damaged("its contents are not UTF-8");
  check_values(text);
  try {
    JsonReader reader(text);
    if (reader.peek() != '{') throw JsonError("no object");
    reader.skip();
    reader.end();
  } catch (const JsonError& error) {
    damaged(std::string("its contents are no JSON object (") + error.what() + ")");
  }
  return text;
}

void StoredFile::read_small(const Stored& all) {
  size_t count = 0;
  int64_t at = all.begin;
  JsonReader reader(entry("small"));
  reader.array([&] {
    int type = -1, part = 0;
    reader.array([&] {
      if (part == 0) {
        const std::string name = reader.string();
        type = type_named(name);
        if (type < 0) damaged("small tensors have the dtype " + quoted(name));
      } else if (part == 1) {
        reader.object([&](const std::string& name) {
          if (too_many(10 * ++count, bytes_.view.size()))
            damaged("more than " + std::to_string(count) + " small tensors");
          Stored made{type, read_shape(reader), at, at, -1};
          const int64_t size = size_of(type, made.shape);
          if (size < 0 || size > all.end - at) {
            damaged("tensor " + quoted(name) + " ends behind the " +
                    std::to_string(all.end - all.begin) + " bytes of the small ones");
          }
          at = made.end = at + size;
          if (!tensors_.emplace(name, std::move(made)).second)
            throw JsonError("two tensors " + quoted(name));
        });
      }
      ++part;
    });
    if (part != 2) throw JsonError("no type with its small tensors");
  });
  const Stored rest{all.type, {}, at, all.end, -1};
  if (!is_filling(bytes_of(rest))) {
    damaged("the small tensors take " + std::to_string(at - all.begin) + " of " +
            std::to_string(all.end - all.begin) + " bytes");
  }
}

}  // namespace nodebits
