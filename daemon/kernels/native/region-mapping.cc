#include "region-mapping.h"
#include <pthread.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>

namespace attndrive {
namespace {

pthread_mutex_t regionsLock = PTHREAD_MUTEX_INITIALIZER;
RegionMapping* regions = nullptr;
uint32_t regionCapacity = 0;

thread_local FaultGuard* volatile activeGuard = nullptr;
struct sigaction formerAction;
bool handlerFailed = false;

// Only a fault of this thread, within what it said that it may fault on, is ours. Any other is as if there were no handler.
void onBusError(int, siginfo_t* info, void*) {
  FaultGuard* const guard = activeGuard;
  const uintptr_t address = reinterpret_cast<uintptr_t>(info->si_addr);
  const bool isFault = info->si_code > 0;
  if (isFault && guard != nullptr && address >= guard->start && address < guard->end) siglongjmp(guard->back, 1);
  const int failure = errno;
  sigaction(SIGBUS, &formerAction, nullptr);
  // The instruction runs again and faults again; a signal that somebody sent has to be sent again.
  if (!isFault) raise(SIGBUS);
  errno = failure;
}

void installHandler() {
  struct sigaction action;
  memset(&action, 0, sizeof action);
  action.sa_sigaction = onBusError;
  // A jump out of the handler must not leave the signal blocked.
  action.sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER;
  sigemptyset(&action.sa_mask);
  handlerFailed = sigaction(SIGBUS, &action, &formerAction) != 0;
}

bool handlesFaults() {
  static pthread_once_t once = PTHREAD_ONCE_INIT;
  pthread_once(&once, installHandler);
  return !handlerFailed;
}

napi_value fail(napi_env env, const char* message) {
  napi_throw_error(env, nullptr, message);
  return nullptr;
}

// An entry for the mapping; false: there is no memory for one.
bool enter(const RegionMapping& region, uint32_t* id) {
  pthread_mutex_lock(&regionsLock);
  uint32_t free = 0;
  while (free < regionCapacity && regions[free].base != nullptr) free++;
  if (free == regionCapacity) {
    const uint32_t capacity = regionCapacity == 0 ? 64 : 2 * regionCapacity;
    void* grown = realloc(regions, capacity * sizeof(RegionMapping));
    if (grown != nullptr) {
      regions = static_cast<RegionMapping*>(grown);
      memset(regions + regionCapacity, 0, (capacity - regionCapacity) * sizeof(RegionMapping));
      regionCapacity = capacity;
    }
  }
  const bool entered = free < regionCapacity;
  if (entered) regions[free] = region;
  pthread_mutex_unlock(&regionsLock);
  *id = free;
  return entered;
}

// (id, offset, bytes: Uint8Array) of a call; false, with an error thrown, if they aren't that.
bool copyArguments(napi_env env, napi_callback_info info, RegionMapping* region, uint64_t* offset, uint8_t** bytes,
                   size_t* sizeBytes) {
  napi_value raw[3];
  size_t given = 3;
  napi_typedarray_type type;
  uint32_t id;
  double start;
  void* data;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return false;
  if (given < 3 || napi_get_value_uint32(env, raw[0], &id) != napi_ok ||
      napi_get_value_double(env, raw[1], &start) != napi_ok ||
      napi_get_typedarray_info(env, raw[2], &type, sizeBytes, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array) {
    return fail(env, "region: (id, offset, bytes: Uint8Array)"), false;
  }
  if (!findRegion(id, region)) return fail(env, "region: no such mapping"), false;
  if (!(start >= 0 && start <= static_cast<double>(region->bytes)) ||
      *sizeBytes > region->bytes - static_cast<uint64_t>(start)) {
    return fail(env, "region: range outside the mapping"), false;
  }
  *offset = static_cast<uint64_t>(start);
  *bytes = static_cast<uint8_t*>(data);
  return true;
}

napi_value booleanResult(napi_env env, bool value) {
  napi_value result = nullptr;
  napi_get_boolean(env, value, &result);
  return result;
}

// What is to be mapped, and where it came to lie; false, with an error thrown.
bool mapFile(napi_env env, napi_callback_info info, RegionMapping* region) {
  napi_value raw[2];
  size_t given = 2;
  double descriptor, size;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return false;
  if (given < 2 || napi_get_value_double(env, raw[0], &descriptor) != napi_ok ||
      napi_get_value_double(env, raw[1], &size) != napi_ok || !(descriptor >= 0 && size >= 1 && size < 9e15)) {
    return fail(env, "mapping: (fileDescriptor, sizeBytes)"), false;
  }
  region->bytes = static_cast<uint64_t>(size);
  region->fileDescriptor = static_cast<int>(descriptor);
  void* mapped = mmap(nullptr, region->bytes, PROT_READ | PROT_WRITE, MAP_SHARED, region->fileDescriptor, 0);
  if (mapped == MAP_FAILED) {
    char message[96];
    snprintf(message, sizeof message, "mapping: %s", strerror(errno));
    return fail(env, message), false;
  }
  region->base = static_cast<uint8_t*>(mapped);
  return true;
}

void bufferCollected(napi_env, void* base, void* bytes) { munmap(base, reinterpret_cast<uintptr_t>(bytes)); }

}  // namespace

FaultGuard* exchangeGuard(FaultGuard* guard) {
  FaultGuard* const former = activeGuard;
  activeGuard = guard;
  return former;
}

bool findRegion(uint32_t id, RegionMapping* region) {
  pthread_mutex_lock(&regionsLock);
  const bool found = id < regionCapacity && regions[id].base != nullptr;
  if (found) *region = regions[id];
  pthread_mutex_unlock(&regionsLock);
  return found;
}

bool reachesTo(const RegionMapping& region, uint64_t end) {
  struct stat status;
  return fstat(region.fileDescriptor, &status) == 0 && static_cast<uint64_t>(status.st_size) >= end;
}

// mapRegion(fileDescriptor, sizeBytes): id. The descriptor stays the caller's, and open until `unmapRegion`.
napi_value mapRegion(napi_env env, napi_callback_info info) {
  napi_value result = nullptr;
  RegionMapping region;
  if (!handlesFaults()) return fail(env, "mapping: bus errors can't be handled here");
  if (!mapFile(env, info, &region)) return nullptr;
  uint32_t id;
  if (!enter(region, &id)) return munmap(region.base, region.bytes), fail(env, "mapping: out of memory");
  napi_create_uint32(env, id, &result);
  return result;
}

// mapBuffer(fileDescriptor, sizeBytes): an ArrayBuffer over the file, mapped until it is collected. Whoever uses it vouches
// that nobody shortens the file: a fault in it ends the process.
napi_value mapBuffer(napi_env env, napi_callback_info info) {
  napi_value result = nullptr;
  RegionMapping region;
  if (!mapFile(env, info, &region)) return nullptr;
  void* hint = reinterpret_cast<void*>(static_cast<uintptr_t>(region.bytes));
  if (napi_create_external_arraybuffer(env, region.base, region.bytes, bufferCollected, hint, &result) != napi_ok) {
    return munmap(region.base, region.bytes), fail(env, "mapping: this runtime takes no memory from outside");
  }
  return result;
}

// unmapRegion(id). Nobody uses it.
napi_value unmapRegion(napi_env env, napi_callback_info info) {
  napi_value raw[1];
  size_t given = 1;
  uint32_t id;
  RegionMapping region;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return nullptr;
  if (given < 1 || napi_get_value_uint32(env, raw[0], &id) != napi_ok || !findRegion(id, &region)) {
    return fail(env, "unmapRegion: no such mapping");
  }
  pthread_mutex_lock(&regionsLock);
  regions[id].base = nullptr;
  pthread_mutex_unlock(&regionsLock);
  munmap(region.base, region.bytes);
  return nullptr;
}

// copyFromRegion(id, offset, target: Uint8Array): whether the file has, and had, all of these bytes.
napi_value copyFromRegion(napi_env env, napi_callback_info info) {
  RegionMapping region;
  uint64_t offset;
  uint8_t* target;
  size_t sizeBytes;
  if (!copyArguments(env, info, &region, &offset, &target, &sizeBytes)) return nullptr;
  const bool copied = guarded(region, [&] { memcpy(target, region.base + offset, sizeBytes); });
  return booleanResult(env, copied && reachesTo(region, offset + sizeBytes));
}

// copyToRegion(id, offset, source: Uint8Array): whether the file had room for all of them.
napi_value copyToRegion(napi_env env, napi_callback_info info) {
  RegionMapping region;
  uint64_t offset;
  uint8_t* source;
  size_t sizeBytes;
  if (!copyArguments(env, info, &region, &offset, &source, &sizeBytes)) return nullptr;
  if (!reachesTo(region, offset + sizeBytes)) return booleanResult(env, false);
  return booleanResult(env, guarded(region, [&] { memcpy(region.base + offset, source, sizeBytes); }));
}

}  // namespace attndrive
