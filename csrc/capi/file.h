// A file of nodebits (docs/format.md) as views of its bytes: only the header and the contents of a
// model are copied.
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

// Of the file format, of models and of other files; src/nodebits/runtime/container.py has the same
// numbers. Models of a later version than the plain one are folded.
inline constexpr int64_t kFormatVersion = 4, kPlainVersion = 3;

struct Stored {
  int type;  // an index of the types of docs/format.md
  std::vector<int64_t> shape;
  int64_t begin, end;  // among the bytes of the tensors
  int64_t checksum;    // -1: the header has none, as of the small tensors of a folded file
};

// What a file may be: the name that it gives itself, and what it is called in errors; null, or
// another name that will do.
struct FileKind {
  const char* format;
  const char* called;
  const char* other = nullptr;
};
inline constexpr FileKind kModelFile{"nodebits", "a nodebits model"};
inline constexpr const char* kRows = "nodebits rows";  // of no model
inline constexpr FileKind kFeaturesFile{"nodebits features", "a file of packed features", kRows};

class StoredFile {
 public:
  // Checks structure and header, and with `every_byte` the checksum of every tensor too.
  // Throws PlanError: FileFormatError, FileVersionError.
  StoredFile(Bytes bytes, std::string name, const FileKind& kind, bool every_byte);

  const std::string& name() const { return name_; }
  // JSON that says what the file holds.
  const std::string& header() const { return header_; }
  // The name that it gives itself.
  const std::string& format() const { return format_; }
  // An entry of it as it stands there, empty where there is none.
  std::string_view entry(const std::string& key) const;
  bool has(const std::string& tensor) const { return tensors_.count(tensor) > 0; }
  // A view of a tensor, which keeps the bytes. Throws PlanError where there is none of that name,
  // or it has a type that no value of a plan has.
  Array tensor(std::string_view name) const;
  // uint16 values of a tensor as int32.
  Array widened(const std::string& name) const;
  bool is_short(const std::string& name) const;
  // -1 where there is no such tensor.
  int64_t checksum(const std::string& name) const;
  [[noreturn]] void damaged(const std::string& what) const;

 private:
  std::string_view outer_header();
  void read_outer(std::string_view text, std::string& signed_header);
  void read_entry(class JsonReader& reader, const std::string& name);
  void read_inner(const std::string& signed_header);
  void read_entries();
  void check_values(std::string_view json) const;
  int64_t checked_version() const;
  void read_checksums(std::string_view text);
  void check_places() const;
  void check_bytes() const;
  void check_bytes(const std::string& name, const Stored& tensor) const;
  std::string_view bytes_of(const Stored& tensor) const;
  uint32_t sum_of(const Stored& tensor) const;
  // Of a folded file: contents, and the table of the small tensors.
  void unfold();
  Stored folded_bytes(const char* name, int64_t begin) const;
  std::string contents(std::string_view deflated) const;
  void read_small(const Stored& all);

  Bytes bytes_;
  std::string name_;
  FileKind kind_;
  std::string header_;
  std::string format_;
  std::unordered_map<std::string, std::string_view> entries_;
  size_t start_ = 0;  // of the tensors' bytes
  std::unordered_map<std::string, Stored> tensors_;
};

}  // namespace nodebits
