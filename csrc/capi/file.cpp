#include "capi/file.h"

#include <algorithm>
#include <cstring>
#include <tuple>
#include <utility>

#include "capi/checksums.h"
#include "capi/tensors.h"
#include "capi/text.h"
#include "plan/json_reader.h"

namespace nodebits {

constexpr uint64_t kMostHeader = 100'000'000;

StoredFile::StoredFile(Bytes bytes, std::string name, const FileKind& kind, bool every_byte)
    : bytes_(std::move(bytes)), name_(std::move(name)), kind_(kind) {
  std::string signed_header;
  try {
    read_outer(outer_header(), signed_header);
    read_inner(signed_header);
    check_places();
    if (checked_version() > kPlainVersion) unfold();
  } catch (const JsonError& error) {
    throw PlanError(
        "FileFormatError",
        name_ + " is no file of nodebits, or its header is damaged (" + error.what() + ")");
  }
  if (every_byte) check_bytes();
}

void StoredFile::damaged(const std::string& what) const {
  throw PlanError("FileFormatError", name_ + " is damaged: " + what);
}

std::string_view StoredFile::outer_header() {
  const std::string_view all = bytes_.view;
  if (all.size() < 8) {
    throw PlanError("FileFormatError", name_ + " has " + std::to_string(all.size()) +
                                           " bytes: too short for a file of nodebits");
  }
  uint64_t length = 0;
  for (int i = 7; i >= 0; --i) length = length << 8 | uint8_t(all[size_t(i)]);
  if (length > all.size() - 8) {
    throw PlanError("FileFormatError",
                    name_ + " is truncated or not a safetensors file: its header should have " +
                        std::to_string(length) + " bytes, " + std::to_string(all.size() - 8) +
                        " follow");
  }
  if (length > kMostHeader) {
    throw PlanError("FileFormatError", name_ + ": a header of " + std::to_string(length) +
                                           " bytes is beyond the limit of " +
                                           std::to_string(kMostHeader));
  }
  start_ = 8 + size_t(length);
  const std::string_view text = all.substr(8, size_t(length));
  if (!valid_utf8(text)) damaged("its header is not UTF-8");
  return text;
}

void StoredFile::read_outer(std::string_view text, std::string& signed_header) {
  JsonReader reader(text);
  int metadata = 0;
  reader.object([&](const std::string& key) {
    if (key != "__metadata__") {
      read_entry(reader, key);
      return;
    }
    ++metadata;
    reader.object([&](const std::string& name) {
      if (name != "nodebits" || !signed_header.empty()) throw JsonError("unexpected metadata");
      signed_header = reader.string();
    });
  });
  reader.end();
  if (metadata != 1) throw JsonError("no metadata of nodebits");
}

void StoredFile::read_entry(JsonReader& reader, const std::string& name) {
  Stored found{-1, {}, -1, -1, -1};
  int shapes = 0;
  reader.object([&](const std::string& key) {
    if (key == "dtype" && found.type < 0) {
      const std::string type = reader.string();
      found.type = type_named(type);
      if (found.type < 0) damaged("tensor " + quoted(name) + " has the dtype " + quoted(type));
    } else if (key == "shape" && ++shapes == 1) {
      found.shape = read_shape(reader);
    } else if (key == "data_offsets" && found.begin < 0) {
      int count = 0;
      reader.array([&] {
        if (++count > 2) throw JsonError("more than two offsets");
        (count == 1 ? found.begin : found.end) = reader.integer();
      });
    } else {
      throw JsonError("an unexpected entry of tensor " + quoted(name));
    }
  });
  if (found.type < 0 || shapes == 0 || found.end < found.begin || found.begin < 0) {
    damaged("tensor " + quoted(name) + " has no dtype, no shape or no place");
  }
  const int64_t size = size_of(found.type, found.shape);
  if (size < 0) damaged("tensor " + quoted(name) + " has a size beyond all memory");
  if (size != found.end - found.begin) {
    damaged("tensor " + quoted(name) + " has " + std::to_string(found.end - found.begin) +
            " bytes, which its shape and dtype do not take");
  }
  if (!tensors_.emplace(name, std::move(found)).second) {
    throw JsonError("two tensors " + quoted(name));
  }
}

void StoredFile::read_inner(const std::string& signed_header) {
  const size_t space = std::min(signed_header.find(' '), signed_header.size());
  header_ = signed_header.substr(std::min(space + 1, signed_header.size()));
  if (sha256(header_) != std::string_view(signed_header).substr(0, space)) {
    damaged("the header's checksum does not match");
  }
  check_values(header_);
  read_entries();
  checked_version();
  if (format_ != kind_.format && (kind_.other == nullptr || format_ != kind_.other)) {
    throw PlanError("FileFormatError",
                    name_ + " is a file of kind " + quoted(format_) + ", not " + kind_.called);
  }
  if (entry("checksums").empty()) damaged("its header has no checksums");
  read_checksums(entry("checksums"));
}

void StoredFile::check_values(std::string_view json) const {
  const size_t values = values_of(json);
  if (!too_many(values, json.size())) return;
  damaged(std::to_string(values) + " values in a header of " + std::to_string(json.size()) +
          " bytes");
}

void StoredFile::read_entries() {
  entries_.clear();
  JsonReader reader(header_);
  reader.object([&](const std::string& key) {
    const std::string_view value = reader.skip();
    if (!entries_.emplace(key, value).second) throw JsonError("twice " + quoted(key));
  });
  reader.end();
  format_ = entry("format").empty() ? "" : JsonReader(entry("format")).string();
}

std::string_view StoredFile::entry(const std::string& key) const {
  const auto found = entries_.find(key);
  return found == entries_.end() ? std::string_view() : found->second;
}

int64_t StoredFile::checked_version() const {
  const std::string_view version = entry("version");
  const bool whole = !version.empty() && version.size() < 10 &&
                     version.find_first_not_of("0123456789") == std::string_view::npos;
  const int64_t number = whole ? std::stoll(std::string(version)) : 0;
  const int64_t newest = format_ == kModelFile.format ? kFormatVersion : kPlainVersion;
  if (number >= 1 && number <= newest) return number;
  throw PlanError("FileVersionError",
                  name_ + " has format version " + std::string(version.substr(0, 20)) +
                      ", this library reads 1 to " + std::to_string(newest) + ": upgrade nodebits");
}

void StoredFile::read_checksums(std::string_view text) {
  JsonReader reader(text);
  reader.object([&](const std::string& name) {
    const int64_t sum = reader.integer();
    const auto found = tensors_.find(name);
    if (found == tensors_.end() || found->second.checksum >= 0) {
      damaged("tensor " + quoted(name) + " is missing or unexpected");
    }
    found->second.checksum = sum;
  });
}

void StoredFile::check_places() const {
  std::vector<std::tuple<int64_t, int64_t, std::string_view>> places;
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.checksum < 0) damaged("tensor " + quoted(name) + " is missing or unexpected");
    places.emplace_back(tensor.begin, tensor.end, name);
  }
  std::sort(places.begin(), places.end());
  int64_t at = 0;
  for (const auto& [begin, end, name] : places) {
    if (begin != at) {
      damaged("tensor " + quoted(name) + " begins at byte " + std::to_string(begin) + ", not " +
              std::to_string(at));
    }
    at = end;
  }
  const auto room = static_cast<int64_t>(bytes_.view.size() - start_);
  if (at != room) {
    throw PlanError("FileFormatError", name_ + " is truncated or damaged: its tensors take " +
                                           std::to_string(at) + " bytes, " + std::to_string(room) +
                                           " follow its header");
  }
}

std::string_view StoredFile::bytes_of(const Stored& tensor) const {
  return bytes_.view.substr(start_ + size_t(tensor.begin), size_t(tensor.end - tensor.begin));
}

uint32_t StoredFile::sum_of(const Stored& tensor) const {
  std::string shape = kTypes[tensor.type].torch;
  shape += '[';
  for (size_t i = 0; i < tensor.shape.size(); ++i) {
    shape += (i > 0 ? ", " : "") + std::to_string(tensor.shape[i]);
  }
  shape += ']';
  const std::string_view data = bytes_of(tensor);
  return crc32(data.data(), data.size(), crc32(shape.data(), shape.size()));
}

void StoredFile::check_bytes() const {
  for (const auto& [name, tensor] : tensors_) {
    if (tensor.checksum >= 0) check_bytes(name, tensor);
  }
}

void StoredFile::check_bytes(const std::string& name, const Stored& tensor) const {
  if (sum_of(tensor) != tensor.checksum)
    damaged("the checksum of tensor " + quoted(name) + " does not match");
}

bool StoredFile::is_short(const std::string& name) const {
  const auto found = tensors_.find(name);
  return found != tensors_.end() && std::string_view(kTypes[found->second.type].name) == "U16";
}

Array StoredFile::widened(const std::string& name) const {
  const Stored& stored = tensors_.at(name);
  const std::string_view data = bytes_of(stored);
  const size_t n = data.size() / 2;
  const auto memory = std::shared_ptr<int32_t[]>(new int32_t[std::max<size_t>(n, 1)]);
  for (size_t i = 0; i < n; ++i)
    memory[i] = uint8_t(data[2 * i]) | int32_t(uint8_t(data[2 * i + 1])) << 8;
  Array made{DType::i32, 1, {static_cast<int64_t>(n)}, memory.get(), nullptr};
  made.owner = std::shared_ptr<void>(memory, memory.get());
  return made;
}

int64_t StoredFile::checksum(const std::string& name) const {
  const auto found = tensors_.find(name);
  if (found == tensors_.end()) return -1;
  return found->second.checksum < 0 ? sum_of(found->second) : found->second.checksum;
}

Array StoredFile::tensor(std::string_view name) const {
  const auto found = tensors_.find(std::string(name));
  if (found == tensors_.end()) damaged("tensor " + quoted(name) + " is needed, which it lacks");
  const Stored& stored = found->second;
  const StoredType& type = kTypes[stored.type];
  if (type.plan < 0) {
    damaged("tensor " + quoted(name) + " has the dtype " + type.name + ", which no step takes");
  }
  const std::string_view data = bytes_of(stored);
  if (type.plan == int(DType::b8) &&
      std::any_of(data.begin(), data.end(), [](char c) { return uint8_t(c) > 1; })) {
    damaged("tensor " + quoted(name) + " has a bool that is neither 0 nor 1");
  }
  Array out{static_cast<DType>(type.plan), int(stored.shape.size()), {}, data.data(), bytes_.owner};
  std::copy(stored.shape.begin(), stored.shape.end(), out.shape);
  if (reinterpret_cast<uintptr_t>(data.data()) % size_t(type.bytes) != 0) {
    // Other writers may put a tensor anywhere; kernels read whole numbers.
    const std::shared_ptr<void> copy(::operator new(data.size()),
                                     [](void* memory) { ::operator delete(memory); });
    std::memcpy(copy.get(), data.data(), data.size());
    out.data = copy.get();
    out.owner = copy;
  }
  return out;
}

}  // namespace nodebits
