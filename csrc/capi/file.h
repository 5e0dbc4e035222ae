// A model file (docs/format.md) as views of its bytes: nothing but the header is copied.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "capi/mapped.h"
#include "plan/plan.h"

namespace nodebits {

// Of the file format; src/nodebits/runtime/container.py has the same number.
inline constexpr int64_t kFormatVersion = 3;

struct Stored {
  int type;  // an index of the types of docs/format.md
  std::vector<int64_t> shape;
  int64_t begin, end;  // among the bytes of the tensors
  int64_t checksum;    // -1: the header has none
};

class ModelFile {
 public:
  // Checks structure and header, and with `every_byte` the checksum of every tensor too.
  // Throws PlanError: FileFormatError, FileVersionError, ConfigError (a file without a plan).
  ModelFile(Bytes bytes, std::string name, bool every_byte);

  // JSON that says what the file holds.
  const std::string& header() const { return header_; }
  // The plan's part of it.
  std::string_view plan() const { return plan_; }
  // A view of a tensor, which keeps the bytes. Throws PlanError where there is none of that name.
  Array tensor(std::string_view name) const;

 private:
  [[noreturn]] void damaged(const std::string& what) const;
  std::string_view outer_header();
  void read_outer(std::string_view text, std::string& signed_header);
  void read_entry(class JsonReader& reader, const std::string& name);
  void read_inner(const std::string& signed_header);
  void check_version(std::string_view version) const;
  void read_checksums(std::string_view text);
  void check_places() const;
  void check_bytes() const;
  std::string_view bytes_of(const Stored& tensor) const;

  Bytes bytes_;
  std::string name_;
  std::string header_;
  std::string_view plan_;
  size_t start_ = 0;  // of the tensors' bytes
  std::unordered_map<std::string, Stored> tensors_;
};

}  // namespace nodebits
