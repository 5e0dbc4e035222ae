// The pool behind parallel_for: one job at a time, renewed in a forked child. Threads wait on
// condition variables, except between the jobs of a KeepAwake, for a fraction of a millisecond.
#include "run/pool.h"

#include <atomic>
#include <chrono>
#include <condition_variable>
#include <exception>
#include <mutex>
#include <thread>
#include <utility>

#if defined(__unix__) || defined(__APPLE__)
#include <pthread.h>
#endif

namespace nodebits {
namespace {

std::atomic<int> g_awake{0};  // how many KeepAwake there are

inline void relax() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#elif defined(__aarch64__)
  asm volatile("yield");
#endif
}

// Looks at `come` for as long as jobs are expected to follow each other at once, 0.2 ms at most.
template <class F>
void watch(const F& come) {
  if (g_awake.load(std::memory_order_relaxed) == 0) return;
  const auto end = std::chrono::steady_clock::now() + std::chrono::microseconds(200);
  while (!come() && g_awake.load(std::memory_order_relaxed) > 0) {
    for (int i = 0; i < 16; ++i) relax();
    if (std::chrono::steady_clock::now() > end) return;
  }
}

class Pool {
 public:
  void run(int64_t tasks, int threads, const std::function<void(int64_t)>& task) {
    std::unique_lock<std::mutex> busy(busy_, std::try_to_lock);
    if (!busy.owns_lock()) {
      for (int64_t i = 0; i < tasks; ++i) task(i);
      return;
    }
    const int64_t wanted = tasks < threads ? tasks - 1 : threads - 1;
    {
      std::unique_lock<std::mutex> lock(state_);
      while (workers_ < wanted && grow()) {
      }
      task_ = &task;
      tasks_ = tasks;
      next_.store(0, std::memory_order_relaxed);
      failed_.store(false, std::memory_order_relaxed);
      invited_ = static_cast<int>(wanted < workers_ ? wanted : workers_);
      ++job_;
    }
    posted_.store(job_, std::memory_order_relaxed);  // not before the lock is free
    wake_.notify_all();
    work();
    {
      // Who has not come by now is not waited for: another program may have its core.
      std::unique_lock<std::mutex> lock(state_);
      invited_ = 0;
    }
    watch([this] { return running_.load(std::memory_order_relaxed) == 0; });
    std::unique_lock<std::mutex> lock(state_);
    done_.wait(lock, [this] { return running_ == 0; });
    task_ = nullptr;
    if (error_) std::rethrow_exception(std::exchange(error_, nullptr));
  }

 private:
  bool grow() {
    try {
      const int index = workers_;
      std::thread([this, index, seen = job_] { loop(index, seen); }).detach();
      ++workers_;
      return true;
    } catch (const std::exception&) {
      return false;  // no thread or no memory for one: the threads that exist do the work
    }
  }

  // An exception that left a thread would end the process: the caller of run gets the first one.
  void work() {
    try {
      while (!failed_.load(std::memory_order_relaxed)) {
        const int64_t i = next_.fetch_add(1, std::memory_order_relaxed);
        if (i >= tasks_) return;
        (*task_)(i);
      }
    } catch (...) {
      if (!failed_.exchange(true)) error_ = std::current_exception();
    }
  }

  void loop(int index, uint64_t seen) {
    for (;;) {
      watch([&] { return posted_.load(std::memory_order_relaxed) != seen; });
      {
        std::unique_lock<std::mutex> lock(state_);
        wake_.wait(lock, [&] { return job_ != seen; });
        seen = job_;
        if (index >= invited_) continue;
        ++running_;
      }
      work();
      std::unique_lock<std::mutex> lock(state_);
      if (--running_ == 0) done_.notify_one();
    }
  }

  std::mutex busy_;
  std::mutex state_;
  std::condition_variable wake_;
  std::condition_variable done_;
  const std::function<void(int64_t)>* task_ = nullptr;
  int64_t tasks_ = 0;
  std::atomic<int64_t> next_{0};
  uint64_t job_ = 0;                 // under state_, like the next three
  std::atomic<uint64_t> posted_{0};  // job_, for those who watch
  std::atomic<int> running_{0};
  std::atomic<bool> failed_{false};
  std::exception_ptr error_;  // written by who sets failed_, read when all have ended
  int workers_ = 0;
  int invited_ = 0;
};

// Never destroyed: detached workers wait on its condition variables until the process ends.
std::atomic<Pool*> g_pool{nullptr};

Pool& pool() {
  Pool* current = g_pool.load(std::memory_order_acquire);
  if (current == nullptr) {
    Pool* fresh = new Pool;
    if (g_pool.compare_exchange_strong(current, fresh)) {
#if defined(__unix__) || defined(__APPLE__)
      // A forked child has none of the workers, and its mutexes may be locked for good: start over.
      static std::once_flag registered;
      std::call_once(registered, [] {
        pthread_atfork(nullptr, nullptr, [] {
          g_pool.store(nullptr);
          g_awake.store(0);
        });
      });
#endif
      return *fresh;
    }
    delete fresh;
  }
  return *current;
}

}  // namespace

KeepAwake::KeepAwake() { g_awake.fetch_add(1, std::memory_order_relaxed); }

KeepAwake::~KeepAwake() { g_awake.fetch_sub(1, std::memory_order_relaxed); }

bool pool_is_awake() { return g_awake.load(std::memory_order_relaxed) > 0; }

void parallel_for(int64_t tasks, int threads, const std::function<void(int64_t)>& task) {
  if (tasks <= 1 || threads <= 1) {
    for (int64_t i = 0; i < tasks; ++i) task(i);
    return;
  }
  pool().run(tasks, threads, task);
}

}  // namespace nodebits
