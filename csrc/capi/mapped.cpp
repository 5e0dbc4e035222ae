#include "capi/mapped.h"

#include <fcntl.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>
#include <string>

#include "plan/plan.h"

namespace nodebits {
namespace {

[[noreturn]] void fail(const char* kind, const char* path, const std::string& why) {
  throw PlanError(kind, std::string(path) + ": " + why);
}

// Closes a descriptor on every way out.
struct Descriptor {
  int number;
  ~Descriptor() { ::close(number); }
};

}  // namespace

Bytes map_file(const char* path) {
  // A pipe without a writer would be waited for, for good.
  const int opened = ::open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
  if (opened < 0) {
    fail(errno == ENOENT || errno == ENOTDIR ? "FileNotFoundError" : "OSError", path,
         std::strerror(errno));
  }
  const Descriptor file{opened};
  struct stat found;
  if (::fstat(file.number, &found) != 0) fail("OSError", path, std::strerror(errno));
  if (!S_ISREG(found.st_mode)) {
    fail("FileFormatError", path,
         S_ISDIR(found.st_mode) ? "is a folder: a file is expected"
                                : "is no regular file: a file is expected");
  }
  const auto bytes = static_cast<size_t>(found.st_size);
  if (bytes == 0) return {};
  void* memory = ::mmap(nullptr, bytes, PROT_READ, MAP_PRIVATE, file.number, 0);
  if (memory == MAP_FAILED) {
    fail(errno == ENOMEM ? "OutOfMemoryError" : "OSError", path, std::strerror(errno));
  }
  return {{static_cast<const char*>(memory), bytes},
          {memory, [bytes](void* mapped) { ::munmap(mapped, bytes); }}};
}

}  // namespace nodebits
