// The bytes of a file, mapped: pages come from the disk when they are read, and are shared.
#pragma once

#include <cstdint>
#include <memory>
#include <string_view>

namespace nodebits {

// `owner` keeps the bytes; empty where the caller does.
struct Bytes {
  std::string_view view;
  std::shared_ptr<void> owner;
};

// Throws PlanError: FileNotFoundError, FileFormatError (a folder, a pipe, a device), OSError.
Bytes map_file(const char* path);

}  // namespace nodebits
