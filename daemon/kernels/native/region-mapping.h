// Mappings of files that somebody else may shorten at any moment: an access beyond the end is a bus error, which becomes
// `false` here instead of the end of the process.
#pragma once
#define NAPI_VERSION 8
#include <node_api.h>
#include <setjmp.h>
#include <cstddef>
#include <cstdint>

namespace attndrive {

struct RegionMapping {
  uint8_t* base;  // null: the entry is free
  uint64_t bytes;
  int fileDescriptor;  // stays the caller's
};

// A copy, so that no lock is held while the memory is used: whoever uses a region keeps it mapped meanwhile.
bool findRegion(uint32_t id, RegionMapping* region);
// Whether the file still reaches `end`. In the page with its end a mapping shows zeros, and takes stores, beyond it.
bool reachesTo(const RegionMapping& region, uint64_t end);

// What this thread may fault on.
struct FaultGuard {
  sigjmp_buf back;
  uintptr_t start, end;
};
FaultGuard* exchangeGuard(FaultGuard* guard);

// Runs `work`, which may touch the region; false: it touched what is not there (any more) and was left where it stood. It
// must hold nothing that has to be given back. Nothing of its caller's that it changes can be relied on after a false.
template <typename Work>
__attribute__((noinline)) bool guarded(const RegionMapping& region, const Work& work) {
  FaultGuard guard;
  guard.start = reinterpret_cast<uintptr_t>(region.base);
  guard.end = guard.start + region.bytes;
  FaultGuard* const outer = exchangeGuard(&guard);
  // The signal mask need not be saved: the handler blocks nothing.
  if (sigsetjmp(guard.back, 0) != 0) {
    exchangeGuard(outer);
    return false;
  }
  work();
  exchangeGuard(outer);
  return true;
}

napi_value mapRegion(napi_env env, napi_callback_info info);
napi_value unmapRegion(napi_env env, napi_callback_info info);
napi_value copyFromRegion(napi_env env, napi_callback_info info);
napi_value copyToRegion(napi_env env, napi_callback_info info);
napi_value mapBuffer(napi_env env, napi_callback_info info);

}  // namespace attndrive
