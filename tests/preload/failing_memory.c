// Loaded ahead of the C library: makes one request of memory fail. A program arms it; until then,
// and for smaller requests than it says, nothing changes.
#define _GNU_SOURCE
#include <dlfcn.h>
#include <errno.h>
#include <stdatomic.h>
#include <stddef.h>
#include <sys/mman.h>
#include <sys/types.h>

void* __libc_malloc(size_t);
void* __libc_calloc(size_t, size_t);
void* __libc_realloc(void*, size_t);
void* __libc_memalign(size_t, size_t);

static atomic_size_t least = (size_t)-1;
static atomic_long seen, failing;
static atomic_int lasting;

// From now on the n-th request of at least so many bytes fails, and with `rest` all after it too;
// for 0 none does.
void fail_memory(size_t bytes, long n, int rest) {
  atomic_store(&least, (size_t)-1);
  atomic_store(&seen, 0);
  atomic_store(&failing, n);
  atomic_store(&lasting, rest);
  atomic_store(&least, bytes);
}

// Ends that; returns how many such requests there were.
long end_memory(void) {
  atomic_store(&least, (size_t)-1);
  return atomic_load(&seen);
}

static int refused(size_t bytes) {
  if (bytes < atomic_load(&least)) return 0;
  const long n = atomic_fetch_add(&seen, 1) + 1, at = atomic_load(&failing);
  return at > 0 && (n == at || (n > at && atomic_load(&lasting)));
}

static void* none(void) {
  errno = ENOMEM;
  return NULL;
}

void* malloc(size_t n) { return refused(n) ? none() : __libc_malloc(n); }

void* calloc(size_t count, size_t size) {
  size_t n;
  if (__builtin_mul_overflow(count, size, &n)) return none();
  return refused(n) ? none() : __libc_calloc(count, size);
}

void* realloc(void* old, size_t n) { return refused(n) ? none() : __libc_realloc(old, n); }

void* memalign(size_t alignment, size_t n) {
  return refused(n) ? none() : __libc_memalign(alignment, n);
}

void* aligned_alloc(size_t alignment, size_t n) { return memalign(alignment, n); }

int posix_memalign(void** made, size_t alignment, size_t n) {
  void* memory = memalign(alignment, n);
  if (memory == NULL) return ENOMEM;
  *made = memory;
  return 0;
}

void* mmap(void* at, size_t n, int protection, int flags, int file, off_t offset) {
  static void* (*next)(void*, size_t, int, int, int, off_t);
  if (next == NULL) next = (void* (*)(void*, size_t, int, int, int, off_t))dlsym(RTLD_NEXT, "mmap");
  if (refused(n)) {
    none();
    return MAP_FAILED;
  }
  return next(at, n, protection, flags, file, offset);
}
