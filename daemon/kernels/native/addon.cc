// The N-API side: `create(memory, fileDescriptor, mediaBytes, isa, slab)` gives an object whose functions work on that
// memory. Arguments are numbers only, so that a call costs little. Nothing throws; every failure becomes a JavaScript error.
#define NAPI_VERSION 8
#include <node_api.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <cerrno>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include "direct-io.h"
#include "event-loop.h"
#include "kernel-set.h"
#include "region-mapping.h"
#include "residency.h"
#include "row-copies.h"
#include "threads.h"

namespace {

using attndrive::KernelSet;
using attndrive::Memory;

constexpr int64_t kNoSlab = -1;

// Shared by the functions of one object; freed, and the media unmapped, when the last of them is collected.
struct Context {
  Memory memory;
  // What the media arena is, if it is no mapping.
  int64_t slab;
  const KernelSet* kernels;
  attndrive::Residency residency;
  napi_ref memoryReference;
  int references;
};

const KernelSet* bestKernels(const char* wanted) {
#if defined(__x86_64__)
  const bool avx2 = __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma") && __builtin_cpu_supports("f16c");
  const bool avx512 = avx2 && __builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
                      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq");
  const bool dotProducts = avx512 && __builtin_cpu_supports("avx512vnni");
  if (dotProducts && __builtin_cpu_supports("avx512bf16") && strcmp(wanted, "avx512fast") == 0) {
    return &attndrive::avx512fastKernels;
  }
  if (dotProducts && (*wanted == 0 || strcmp(wanted, "avx512dp") == 0)) return &attndrive::avx512dpKernels;
  if (avx512 && (*wanted == 0 || strcmp(wanted, "avx512") == 0)) return &attndrive::avx512Kernels;
  if (avx2 && (*wanted == 0 || strcmp(wanted, "avx2") == 0)) return &attndrive::avx2Kernels;
#endif
  if (*wanted == 0 || strcmp(wanted, "portable") == 0) return &attndrive::portableKernels;
  return nullptr;
}

napi_value fail(napi_env env, const char* message) {
  napi_throw_error(env, nullptr, message);
  return nullptr;
}

constexpr size_t kArgumentsMax = 6;

// Reads up to `count` non-negative integers; missing ones are 0. Null, with an error thrown, if one isn't.
Context* arguments(napi_env env, napi_callback_info info, size_t count, uint64_t* values) {
  napi_value raw[kArgumentsMax];
  size_t given = count;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, &data) != napi_ok) return nullptr;
  for (size_t i = 0; i < count; i++) {
    double value = 0;
    if (i < given && napi_get_value_double(env, raw[i], &value) != napi_ok) {
      return fail(env, "kernel argument is not a number"), nullptr;
    }
    if (!(value >= 0 && value <= 9007199254740991.0)) return fail(env, "kernel argument out of range"), nullptr;
    values[i] = static_cast<uint64_t>(value);
  }
  return static_cast<Context*>(data);
}

napi_value numberResult(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

napi_value booleanResult(napi_env env, bool value) {
  napi_value result = nullptr;
  napi_get_boolean(env, value, &result);
  return result;
}

napi_value attend(napi_env env, napi_callback_info info) {
  uint64_t job;
  Context* context = arguments(env, info, 1, &job);
  if (context == nullptr) return nullptr;
  const char* problem = context->kernels->attend(context->memory, job);
  return problem != nullptr ? fail(env, problem) : nullptr;
}

napi_value merge(napi_env env, napi_callback_info info) {
  uint64_t job;
  Context* context = arguments(env, info, 1, &job);
  if (context == nullptr) return nullptr;
  const char* problem = context->kernels->merge(context->memory, job);
  return problem != nullptr ? fail(env, problem) : nullptr;
}

napi_value convert(napi_env env, napi_callback_info info) {
  uint64_t a[6];
  Context* context = arguments(env, info, 6, a);
  if (context == nullptr) return nullptr;
  const char* problem = context->kernels->convert(context->memory, a[0], static_cast<uint32_t>(a[1]), a[2],
                                                  static_cast<uint32_t>(a[3]), a[4], a[5]);
  return problem != nullptr ? fail(env, problem) : nullptr;
}

// gather(source, strideBytes, rowBytes, rowCount, target, region): whether all rows were there
napi_value gather(napi_env env, napi_callback_info info) {
  uint64_t a[6];
  Context* context = arguments(env, info, 6, a);
  if (context == nullptr) return nullptr;
  bool copied;
  const attndrive::Rows rows = {a[0], a[1], a[2], a[3]};
  const char* problem = attndrive::gatherRows(context->memory, rows, a[4], static_cast<uint32_t>(a[5]), &copied);
  return problem != nullptr ? fail(env, problem) : booleanResult(env, copied);
}

// assemble(job): likewise
napi_value assemble(napi_env env, napi_callback_info info) {
  uint64_t job;
  Context* context = arguments(env, info, 1, &job);
  if (context == nullptr) return nullptr;
  bool copied;
  const char* problem = attndrive::assemblePages(context->memory, *context->kernels, job, &copied);
  return problem != nullptr ? fail(env, problem) : booleanResult(env, copied);
}

// crc32c(offset, bytes, seed, media)
napi_value crc32c(napi_env env, napi_callback_info info) {
  uint64_t a[4];
  Context* context = arguments(env, info, 4, a);
  if (context == nullptr) return nullptr;
  const Memory& memory = context->memory;
  const uint8_t* base = a[3] != 0 ? memory.media : memory.arena;
  if (base == nullptr || !attndrive::inRange(a[0], a[1], a[3] != 0 ? memory.mediaBytes : memory.arenaBytes)) {
    return fail(env, "crc32c: range outside its arena");
  }
  return numberResult(env, context->kernels->crc32c(static_cast<uint32_t>(a[2]), base + a[0], a[1]));
}

// crc32cOf(bytes: Uint8Array, seed)
napi_value crc32cOf(napi_env env, napi_callback_info info) {
  napi_value raw[2];
  size_t given = 2;
  napi_typedarray_type type;
  size_t length;
  void* data;
  uint32_t seed;
  bool isTypedArray = false;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return nullptr;
  if (given == 2) napi_is_typedarray(env, raw[0], &isTypedArray);
  if (!isTypedArray || napi_get_typedarray_info(env, raw[0], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array || napi_get_value_uint32(env, raw[1], &seed) != napi_ok) {
    return fail(env, "crc32cOf: (bytes: Uint8Array, seed)");
  }
  return numberResult(env, attndrive::crc32c(seed, static_cast<const uint8_t*>(data), length));
}

// copyResidentMedia(offset, target: Uint8Array): whether all of it was in memory, and is copied
napi_value copyResidentMedia(napi_env env, napi_callback_info info) {
  napi_value raw[2];
  size_t given = 2;
  void* data = nullptr;
  double offset = -1;
  napi_typedarray_type type;
  size_t length = 0;
  void* target = nullptr;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, &data) != napi_ok) return nullptr;
  Context* context = static_cast<Context*>(data);
  const Memory& memory = context->memory;
  if (given < 2 || napi_get_value_double(env, raw[0], &offset) != napi_ok ||
      napi_get_typedarray_info(env, raw[1], &type, &length, &target, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array || memory.media == nullptr || length == 0 || !(offset >= 0) ||
      !attndrive::inRange(static_cast<uint64_t>(offset), length, memory.mediaBytes)) {
    return fail(env, "copyResidentMedia: (offset, target: Uint8Array) within the media");
  }
  const uint64_t start = static_cast<uint64_t>(offset);
  const bool resident = context->residency.covers(memory.media, memory.mediaBytes, start, length);
  if (resident) memcpy(target, memory.media + start, length);
  return booleanResult(env, resident);
}

// readSum(offset, bytes, media)
napi_value readSum(napi_env env, napi_callback_info info) {
  uint64_t a[3];
  Context* context = arguments(env, info, 3, a);
  if (context == nullptr) return nullptr;
  const Memory& memory = context->memory;
  const uint8_t* base = a[2] != 0 ? memory.media : memory.arena;
  if (base == nullptr || !attndrive::inRange(a[0], a[1], a[2] != 0 ? memory.mediaBytes : memory.arenaBytes)) {
    return fail(env, "readSum: range outside its arena");
  }
  return numberResult(env, static_cast<double>(context->kernels->readSum(base + a[0], a[1])));
}

void release(napi_env env, void* data, void*) {
  Context* context = static_cast<Context*>(data);
  if (--context->references > 0) return;
  if (context->slab != kNoSlab) {
    attndrive::dropSlab(static_cast<uint32_t>(context->slab));
  } else if (context->memory.media != nullptr) {
    munmap(const_cast<uint8_t*>(context->memory.media), context->memory.mediaBytes);
  }
  context->residency.release();
  if (context->memoryReference != nullptr) napi_delete_reference(env, context->memoryReference);
  free(context);
}

bool addFunction(napi_env env, napi_value object, const char* name, napi_callback callback, Context* context) {
  napi_value function;
  if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, context, &function) != napi_ok) return false;
  if (napi_add_finalizer(env, function, context, release, nullptr, nullptr) != napi_ok) return false;
  context->references++;
  return napi_set_named_property(env, object, name, function) == napi_ok;
}

bool mapMedia(napi_env env, Context* context, int fileDescriptor, uint64_t sizeBytes) {
  char message[160];
  struct stat status;
  if (fstat(fileDescriptor, &status) != 0) {
    snprintf(message, sizeof message, "media file: %s", strerror(errno));
    return fail(env, message), false;
  }
  if (sizeBytes == 0 || static_cast<uint64_t>(status.st_size) < sizeBytes) {
    snprintf(message, sizeof message, "media file has %llu bytes, %llu are to be mapped",
             static_cast<unsigned long long>(status.st_size), static_cast<unsigned long long>(sizeBytes));
    return fail(env, message), false;
  }
  void* mapped = mmap(nullptr, sizeBytes, PROT_READ, MAP_SHARED, fileDescriptor, 0);
  if (mapped == MAP_FAILED) {
    snprintf(message, sizeof message, "media file: mapping %llu bytes: %s", static_cast<unsigned long long>(sizeBytes),
             strerror(errno));
    return fail(env, message), false;
  }
  context->memory.media = static_cast<const uint8_t*>(mapped);
  context->memory.mediaBytes = sizeBytes;
  return true;
}

bool holdMedia(napi_env env, Context* context, double slab) {
  uint64_t sizeBytes = 0;
  context->memory.media = attndrive::holdSlab(static_cast<uint32_t>(slab), &sizeBytes);
  if (context->memory.media == nullptr) return fail(env, "create: no such slab"), false;
  context->memory.mediaBytes = sizeBytes;
  context->slab = static_cast<int64_t>(slab);
  return true;
}

bool fillContext(napi_env env, const napi_value* raw, Context* context) {
  napi_typedarray_type type;
  size_t length;
  void* data;
  bool isTypedArray = false;
  napi_is_typedarray(env, raw[0], &isTypedArray);
  if (!isTypedArray || napi_get_typedarray_info(env, raw[0], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_uint8_array || (reinterpret_cast<uintptr_t>(data) & 3) != 0) {
    return fail(env, "create: memory is not an aligned Uint8Array"), false;
  }
  context->memory.arena = static_cast<uint8_t*>(data);
  context->memory.arenaBytes = length;
  double fileDescriptor, mediaBytes, slab;
  char isa[16];
  size_t isaLength;
  if (napi_get_value_double(env, raw[1], &fileDescriptor) != napi_ok ||
      napi_get_value_double(env, raw[2], &mediaBytes) != napi_ok ||
      napi_get_value_string_utf8(env, raw[3], isa, sizeof isa, &isaLength) != napi_ok ||
      napi_get_value_double(env, raw[4], &slab) != napi_ok) {
    return fail(env, "create: (memory: Uint8Array, fileDescriptor, mediaBytes, isa, slab)"), false;
  }
  context->kernels = bestKernels(isa);
  if (context->kernels == nullptr) return fail(env, "create: instruction set unknown or not on this machine"), false;
  if (napi_create_reference(env, raw[0], 1, &context->memoryReference) != napi_ok) return false;
  if (slab >= 0) return holdMedia(env, context, slab);
  if (fileDescriptor < 0) return true;
  return mapMedia(env, context, static_cast<int>(fileDescriptor), static_cast<uint64_t>(mediaBytes));
}

// create(memory: Uint8Array, fileDescriptor: number or -1, mediaBytes: number, isa: string or '' for the best,
// slab: number or -1). The media arena is the slab, if there is one, else a mapping of the file.
napi_value create(napi_env env, napi_callback_info info) {
  napi_value raw[5];
  size_t given = 5;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok) return nullptr;
  if (given < 5) return fail(env, "create: five arguments");
  Context* context = static_cast<Context*>(calloc(1, sizeof(Context)));
  if (context == nullptr) return fail(env, "create: out of memory");
  context->references = 1;
  context->slab = kNoSlab;
  napi_value object = nullptr, isa = nullptr;
  bool made = fillContext(env, raw, context) && napi_create_object(env, &object) == napi_ok &&
              addFunction(env, object, "attend", attend, context) &&
              addFunction(env, object, "merge", merge, context) &&
              addFunction(env, object, "convert", convert, context) &&
              addFunction(env, object, "gather", gather, context) &&
              addFunction(env, object, "assemble", assemble, context) &&
              addFunction(env, object, "crc32c", crc32c, context) &&
              addFunction(env, object, "crc32cOf", crc32cOf, context) &&
              addFunction(env, object, "copyResidentMedia", copyResidentMedia, context) &&
              addFunction(env, object, "readSum", readSum, context) &&
              napi_create_string_utf8(env, context->kernels->isa, NAPI_AUTO_LENGTH, &isa) == napi_ok &&
              napi_set_named_property(env, object, "isa", isa) == napi_ok;
  release(env, context, nullptr);
  return made ? object : nullptr;
}

}  // namespace

NAPI_MODULE_INIT() {
  const struct {
    const char* name;
    napi_callback callback;
  } functions[] = {{"create", create},
                   {"createSlab", attndrive::createSlab},
                   {"openDirectIo", attndrive::openDirectIo},
                   {"mapRegion", attndrive::mapRegion},
                   {"unmapRegion", attndrive::unmapRegion},
                   {"copyFromRegion", attndrive::copyFromRegion},
                   {"copyToRegion", attndrive::copyToRegion},
                   {"mapBuffer", attndrive::mapBuffer},
                   {"threadId", attndrive::threadId},
                   {"currentCpu", attndrive::currentCpu},
                   {"keepThreadOff", attndrive::keepThreadOff},
                   {"hasPendingEvents", attndrive::hasPendingEvents}};
  for (const auto& [name, callback] : functions) {
    napi_value function;
    if (napi_create_function(env, name, NAPI_AUTO_LENGTH, callback, nullptr, &function) == napi_ok) {
      napi_set_named_property(env, exports, name, function);
    }
  }
  return exports;
}
