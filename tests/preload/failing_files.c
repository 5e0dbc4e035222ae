// Loaded ahead of the C library: makes one call that changes files fail. A program arms it; until
// then nothing changes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <unistd.h>

static long armed, seen, failing;
static int reason;
static const char *last = "", *folder;

// From now on the n-th call fails for this reason; for 0 none does. Files are opened elsewhere too,
// to read: only what is in this folder counts.
void fail_files(const char* within, long n, int error) {
  folder = within, seen = 0, failing = n, reason = error, armed = 1;
}

// Ends that; returns how many calls there were.
long end_files(void) {
  armed = 0;
  return seen;
}

// Name of the call that failed.
const char* failed_call(void) { return last; }

static int refused(const char* name) {
  if (!armed || ++seen != failing) return 0;
  last = name;
  errno = reason;
  return 1;
}

static int inside(const char* path) { return armed && !strncmp(path, folder, strlen(folder)); }

#define NEXT(name) ((__typeof__(&name))dlsym(RTLD_NEXT, #name))
#define TAKES(name, parameters, arguments) \
  int name parameters { return refused(#name) ? -1 : NEXT(name) arguments; }

TAKES(fsync, (int file), (file))
TAKES(fdatasync, (int file), (file))
TAKES(ftruncate64, (int file, off64_t size), (file, size))
TAKES(flock, (int file, int how), (file, how))
TAKES(chmod, (const char* path, mode_t mode), (path, mode))
TAKES(fchmod, (int file, mode_t mode), (file, mode))
TAKES(rename, (const char* from, const char* to), (from, to))
TAKES(symlink, (const char* from, const char* to), (from, to))

int mkdir(const char* path, mode_t mode) {
  return inside(path) && refused("mkdir") ? -1 : NEXT(mkdir)(path, mode);
}

ssize_t write(int file, const void* bytes, size_t count) {
  return refused("write") ? -1 : NEXT(write)(file, bytes, count);
}

int open64(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return inside(path) && refused("open") ? -1 : NEXT(open64)(path, flags, mode);
}

int open(const char* path, int flags, ...) {
  va_list rest;
  va_start(rest, flags);
  const mode_t mode = flags & (O_CREAT | O_TMPFILE) ? va_arg(rest, mode_t) : 0;
  va_end(rest);
  return inside(path) && refused("open") ? -1 : NEXT(open)(path, flags, mode);
}
