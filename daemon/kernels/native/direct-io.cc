// Direct I/O by a pool of threads that block. On the disks measured, sixteen of them reach what a ring of the kernel's
// (io_uring) reaches with requests of 128 KiB and more, and they work where containers forbid the ring.
//
// The event loop submits requests and takes completions; one call of `notify` tells it of any number of them.
#define NAPI_VERSION 8
#include "direct-io.h"
#include <pthread.h>
#include <sys/mman.h>
#include <unistd.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace attndrive {
namespace {

constexpr size_t kHugePageBytes = 2 << 20;
constexpr size_t kSlabsMax = 256;
constexpr uint32_t kThreadsMax = 64;
constexpr size_t kStackBytes = 128 << 10;
// What a request failed with if the file ends before it: no error number of the system's.
constexpr int kTooShort = -1;

napi_value fail(napi_env env, const char* message) {
  napi_throw_error(env, nullptr, message);
  return nullptr;
}

// --- Slabs

struct Slab {
  uint8_t* base;
  size_t bytes;
  uint32_t references;
};

pthread_mutex_t slabsLock = PTHREAD_MUTEX_INITIALIZER;
Slab slabs[kSlabsMax];

uint8_t* mapAligned(size_t bytes) {
  const size_t reserved = bytes + kHugePageBytes;
  void* mapped = mmap(nullptr, reserved, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
  if (mapped == MAP_FAILED) return nullptr;
  const uintptr_t start = reinterpret_cast<uintptr_t>(mapped);
  const uintptr_t aligned = (start + kHugePageBytes - 1) & ~(kHugePageBytes - 1);
  if (aligned > start) munmap(mapped, aligned - start);
  const uintptr_t end = start + reserved;
  if (end > aligned + bytes) munmap(reinterpret_cast<void*>(aligned + bytes), end - aligned - bytes);
#ifdef MADV_HUGEPAGE
  // Frames lie scattered: with large pages, walking them costs fewer look-ups of addresses. Only a wish.
  madvise(reinterpret_cast<void*>(aligned), bytes, MADV_HUGEPAGE);
#endif
  return reinterpret_cast<uint8_t*>(aligned);
}

void slabCollected(napi_env, void*, void* hint) { dropSlab(static_cast<uint32_t>(reinterpret_cast<uintptr_t>(hint))); }

// --- Requests

struct Request {
  Request* next;
  double number;
  uint64_t position;
  uint64_t offset;
  uint64_t bytes;
  int result;
  bool isWrite;
};

struct List {
  Request* first;
  Request* last;

  void push(Request* request) {
    request->next = nullptr;
    if (last != nullptr) last->next = request;
    else first = request;
    last = request;
  }
  Request* pop() {
    Request* request = first;
    if (request == nullptr) return nullptr;
    first = request->next;
    if (first == nullptr) last = nullptr;
    return request;
  }
};

struct Io {
  int fileDescriptor;
  uint32_t slab;
  uint8_t* base;
  uint64_t bytes;
  pthread_mutex_t lock;
  pthread_cond_t submitted;
  pthread_cond_t completed;
  List waiting;
  List done;
  bool isStopping;
  // Whether `notify` was called and nothing was taken since.
  bool isNotified;
  pthread_t threads[kThreadsMax];
  uint32_t threadCount;
  napi_threadsafe_function notify;
  // Of the event loop: requests submitted and not taken. While there are any, they keep the process alive.
  uint64_t pending;
  // Functions of the object that are not collected yet.
  uint32_t references;
};

int transfer(const Io& io, const Request& request) {
  uint64_t at = 0;
  while (at < request.bytes) {
    uint8_t* memory = io.base + request.offset + at;
    const size_t left = request.bytes - at;
    const off_t position = static_cast<off_t>(request.position + at);
    const ssize_t moved = request.isWrite ? pwrite(io.fileDescriptor, memory, left, position)
                                          : pread(io.fileDescriptor, memory, left, position);
    if (moved < 0 && errno == EINTR) continue;
    if (moved < 0) return errno;
    if (moved == 0) return request.isWrite ? ENOSPC : kTooShort;
    at += static_cast<uint64_t>(moved);
  }
  return 0;
}

void* work(void* data) {
  Io& io = *static_cast<Io*>(data);
  pthread_mutex_lock(&io.lock);
  for (;;) {
    Request* request = io.waiting.pop();
    if (request == nullptr) {
      if (io.isStopping) break;
      pthread_cond_wait(&io.submitted, &io.lock);
      continue;
    }
    pthread_mutex_unlock(&io.lock);
    request->result = transfer(io, *request);
    pthread_mutex_lock(&io.lock);
    io.done.push(request);
    pthread_cond_signal(&io.completed);
    if (io.isNotified) continue;
    io.isNotified = true;
    napi_call_threadsafe_function(io.notify, nullptr, napi_tsfn_nonblocking);
  }
  pthread_mutex_unlock(&io.lock);
  return nullptr;
}

// What was submitted is done first.
void stop(Io* io) {
  pthread_mutex_lock(&io->lock);
  io->isStopping = true;
  pthread_cond_broadcast(&io->submitted);
  pthread_mutex_unlock(&io->lock);
  for (uint32_t i = 0; i < io->threadCount; i++) pthread_join(io->threads[i], nullptr);
  io->threadCount = 0;
}

void environmentEnds(void* data) { stop(static_cast<Io*>(data)); }

void collected(napi_env env, void* data, void*) {
  Io* io = static_cast<Io*>(data);
  if (--io->references > 0) return;
  napi_remove_env_cleanup_hook(env, environmentEnds, io);
  stop(io);
  for (Request* request = io->done.pop(); request != nullptr; request = io->done.pop()) free(request);
  pthread_cond_destroy(&io->completed);
  pthread_cond_destroy(&io->submitted);
  pthread_mutex_destroy(&io->lock);
  dropSlab(io->slab);
  free(io);
}

// --- What JavaScript sees

constexpr size_t kArgumentsMax = 5;

// Reads `count` non-negative integers. Null, with an error thrown, if one isn't.
Io* arguments(napi_env env, napi_callback_info info, size_t count, double* values) {
  napi_value raw[kArgumentsMax];
  size_t given = count;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, &data) != napi_ok) return nullptr;
  for (size_t i = 0; i < count; i++) {
    values[i] = -1;
    if (i < given) napi_get_value_double(env, raw[i], &values[i]);
    if (!(values[i] >= 0 && values[i] <= 9007199254740991.0)) return fail(env, "direct I/O: not a number"), nullptr;
  }
  return static_cast<Io*>(data);
}

// submit(number, isWrite, position, offset, bytes)
napi_value submit(napi_env env, napi_callback_info info) {
  double a[5];
  Io* io = arguments(env, info, 5, a);
  if (io == nullptr) return nullptr;
  if (io->threadCount == 0) return fail(env, "direct I/O: closed");
  if (a[4] == 0 || a[3] + a[4] > static_cast<double>(io->bytes)) return fail(env, "direct I/O: outside of the slab");
  Request* request = static_cast<Request*>(calloc(1, sizeof(Request)));
  if (request == nullptr) return fail(env, "direct I/O: out of memory");
  request->number = a[0];
  request->isWrite = a[1] != 0;
  request->position = static_cast<uint64_t>(a[2]);
  request->offset = static_cast<uint64_t>(a[3]);
  request->bytes = static_cast<uint64_t>(a[4]);
  if (io->pending++ == 0) napi_ref_threadsafe_function(env, io->notify);
  pthread_mutex_lock(&io->lock);
  io->waiting.push(request);
  pthread_cond_signal(&io->submitted);
  pthread_mutex_unlock(&io->lock);
  return nullptr;
}

// take(completions: Float64Array) -> how many: pairs of number and result. The next completion is notified again.
napi_value take(napi_env env, napi_callback_info info) {
  napi_value raw[1];
  size_t given = 1, length = 0;
  void* data = nullptr;
  void* array = nullptr;
  napi_typedarray_type type;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, &data) != napi_ok || given < 1) return nullptr;
  if (napi_get_typedarray_info(env, raw[0], &type, &length, &array, nullptr, nullptr) != napi_ok ||
      type != napi_float64_array) {
    return fail(env, "direct I/O: take(Float64Array)");
  }
  Io* io = static_cast<Io*>(data);
  double* pairs = static_cast<double*>(array);
  size_t count = 0;
  pthread_mutex_lock(&io->lock);
  while (2 * count + 1 < length) {
    Request* request = io->done.pop();
    if (request == nullptr) break;
    pairs[2 * count] = request->number;
    pairs[2 * count + 1] = request->result;
    free(request);
    count++;
  }
  if (io->done.first == nullptr) io->isNotified = false;
  pthread_mutex_unlock(&io->lock);
  io->pending -= count;
  if (count > 0 && io->pending == 0) napi_unref_threadsafe_function(env, io->notify);
  napi_value result = nullptr;
  napi_create_uint32(env, static_cast<uint32_t>(count), &result);
  return result;
}

// wait(): blocks until there is something to take, if anything is pending.
napi_value wait(napi_env env, napi_callback_info info) {
  Io* io = arguments(env, info, 0, nullptr);
  if (io == nullptr || io->pending == 0) return nullptr;
  pthread_mutex_lock(&io->lock);
  while (io->done.first == nullptr) pthread_cond_wait(&io->completed, &io->lock);
  pthread_mutex_unlock(&io->lock);
  return nullptr;
}

napi_value close(napi_env env, napi_callback_info info) {
  Io* io = arguments(env, info, 0, nullptr);
  if (io == nullptr || io->threadCount == 0) return nullptr;
  stop(io);
  napi_release_threadsafe_function(io->notify, napi_tsfn_release);
  return nullptr;
}

bool addFunction(napi_env env, napi_value object, const char* name, napi_callback callback, Io* io) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, io, &function) != napi_ok) return false;
  if (napi_add_finalizer(env, function, io, collected, nullptr, nullptr) != napi_ok) return false;
  io->references++;
  return napi_set_named_property(env, object, name, function) == napi_ok;
}

bool startThreads(Io* io, uint32_t count) {
  pthread_attr_t attributes;
  pthread_attr_init(&attributes);
  pthread_attr_setstacksize(&attributes, kStackBytes);
  while (io->threadCount < count && pthread_create(&io->threads[io->threadCount], &attributes, work, io) == 0) {
    io->threadCount++;
  }
  pthread_attr_destroy(&attributes);
  return io->threadCount > 0;
}

}  // namespace

uint8_t* holdSlab(uint32_t id, uint64_t* sizeBytes) {
  if (id >= kSlabsMax) return nullptr;
  pthread_mutex_lock(&slabsLock);
  Slab& slab = slabs[id];
  if (slab.references > 0) slab.references++;
  uint8_t* base = slab.base;
  *sizeBytes = slab.bytes;
  pthread_mutex_unlock(&slabsLock);
  return base;
}

void dropSlab(uint32_t id) {
  pthread_mutex_lock(&slabsLock);
  Slab& slab = slabs[id];
  if (--slab.references == 0) {
    munmap(slab.base, slab.bytes);
    slab.base = nullptr;
    slab.bytes = 0;
  }
  pthread_mutex_unlock(&slabsLock);
}

napi_value createSlab(napi_env env, napi_callback_info info) {
  napi_value raw[1], object, number, bytes;
  size_t given = 1;
  double size = 0;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return nullptr;
  if (given < 1 || napi_get_value_double(env, raw[0], &size) != napi_ok || !(size >= 4096 && size < 9e15)) {
    return fail(env, "slab: size out of range");
  }
  const size_t sizeBytes = static_cast<size_t>(size) & ~static_cast<size_t>(4095);
  uint8_t* base = mapAligned(sizeBytes);
  if (base == nullptr) return fail(env, "slab: the system gives no such address space");
  uint32_t id = 0;
  pthread_mutex_lock(&slabsLock);
  while (id < kSlabsMax && slabs[id].references > 0) id++;
  if (id < kSlabsMax) slabs[id] = {base, sizeBytes, 1};
  pthread_mutex_unlock(&slabsLock);
  if (id == kSlabsMax) return munmap(base, sizeBytes), fail(env, "slab: there are too many");
  void* hint = reinterpret_cast<void*>(static_cast<uintptr_t>(id));
  if (napi_create_external_arraybuffer(env, base, sizeBytes, slabCollected, hint, &bytes) != napi_ok) {
    return dropSlab(id), fail(env, "slab: this runtime takes no memory from outside");
  }
  const bool made = napi_create_object(env, &object) == napi_ok && napi_create_uint32(env, id, &number) == napi_ok &&
                    napi_set_named_property(env, object, "id", number) == napi_ok &&
                    napi_set_named_property(env, object, "buffer", bytes) == napi_ok;
  return made ? object : nullptr;
}

napi_value openDirectIo(napi_env env, napi_callback_info info) {
  napi_value raw[4], object = nullptr, label;
  size_t given = 4;
  double descriptor = -1, slab = -1, threads = 0;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return nullptr;
  if (given < 4 || napi_get_value_double(env, raw[0], &descriptor) != napi_ok ||
      napi_get_value_double(env, raw[1], &slab) != napi_ok || napi_get_value_double(env, raw[2], &threads) != napi_ok ||
      !(descriptor >= 0 && slab >= 0 && slab < kSlabsMax && threads >= 1 && threads <= kThreadsMax)) {
    return fail(env, "direct I/O: (fileDescriptor, slab, threadCount, notify)");
  }
  Io* io = static_cast<Io*>(calloc(1, sizeof(Io)));
  if (io == nullptr) return fail(env, "direct I/O: out of memory");
  io->fileDescriptor = static_cast<int>(descriptor);
  io->slab = static_cast<uint32_t>(slab);
  io->base = holdSlab(io->slab, &io->bytes);
  if (io->base == nullptr) return free(io), fail(env, "direct I/O: no such slab");
  pthread_mutex_init(&io->lock, nullptr);
  pthread_cond_init(&io->submitted, nullptr);
  pthread_cond_init(&io->completed, nullptr);
  io->references = 1;
  const bool hasNotify =
      napi_create_string_utf8(env, "direct I/O", NAPI_AUTO_LENGTH, &label) == napi_ok &&
      napi_create_threadsafe_function(env, raw[3], nullptr, label, 0, 1, nullptr, nullptr, nullptr, nullptr,
                                      &io->notify) == napi_ok;
  if (hasNotify) napi_unref_threadsafe_function(env, io->notify);
  napi_add_env_cleanup_hook(env, environmentEnds, io);
  const bool made = hasNotify && startThreads(io, static_cast<uint32_t>(threads)) &&
                    napi_create_object(env, &object) == napi_ok && addFunction(env, object, "submit", submit, io) &&
                    addFunction(env, object, "take", take, io) && addFunction(env, object, "wait", wait, io) &&
                    addFunction(env, object, "close", close, io);
  if (hasNotify && !made) napi_release_threadsafe_function(io->notify, napi_tsfn_release);
  collected(env, io, nullptr);
  return made ? object : fail(env, "direct I/O: no threads");
}

}  // namespace attndrive
