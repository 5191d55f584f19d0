// Memory that all threads of the process see under one number, and direct I/O between it and a file.
#pragma once
#include <node_api.h>
#include <cstddef>
#include <cstdint>

namespace attndrive {

// Takes a reference to a slab; null if there is none of that number.
uint8_t* holdSlab(uint32_t id, uint64_t* sizeBytes);
// Gives one back; the memory goes with the last.
void dropSlab(uint32_t id);

// createSlab(sizeBytes) -> {id, bytes}: pages of zeros, aligned to 2 MiB. The memory is there as long as `bytes` is.
napi_value createSlab(napi_env env, napi_callback_info info);
// openDirectIo(fileDescriptor, slab, threadCount, notify) -> {submit, take, wait, close}
napi_value openDirectIo(napi_env env, napi_callback_info info);

}  // namespace attndrive
