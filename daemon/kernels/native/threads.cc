// Where threads run. A scheduler that finds a machine busy stops looking for an idle CPU when it wakes a thread, and two threads
// of ours then share one while another has nothing to do.
#include "threads.h"
#if defined(__linux__)
#include <sched.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace {

napi_value numberOf(napi_env env, double value) {
  napi_value result = nullptr;
  napi_create_double(env, value, &result);
  return result;
}

}  // namespace

namespace attndrive {

#if defined(__linux__)
namespace {

void keepOff(pid_t thread, const int32_t* cpus, uint32_t count) {
  cpu_set_t allowed;
  // More CPUs than the set has: the scheduler knows best.
  if (sched_getaffinity(0, sizeof allowed, &allowed) != 0) return;
  cpu_set_t chosen = allowed;
  for (uint32_t i = 0; i < count; i++) {
    if (cpus[i] < 0 || cpus[i] >= CPU_SETSIZE || !CPU_ISSET(cpus[i], &chosen)) continue;
    CPU_CLR(cpus[i], &chosen);
    if (CPU_COUNT(&chosen) > 0) continue;
    CPU_SET(cpus[i], &chosen);
    break;
  }
  sched_setaffinity(thread, sizeof chosen, &chosen);
}

}  // namespace

napi_value threadId(napi_env env, napi_callback_info) { return numberOf(env, static_cast<double>(syscall(SYS_gettid))); }
napi_value currentCpu(napi_env env, napi_callback_info) { return numberOf(env, sched_getcpu()); }
#else
napi_value threadId(napi_env env, napi_callback_info) { return numberOf(env, 0); }
napi_value currentCpu(napi_env env, napi_callback_info) { return numberOf(env, -1); }
#endif

// keepThreadOff(thread, cpus: Int32Array, count): lets the thread run on all CPUs that the caller may use but the first `count`
// of `cpus`; if those are all, on the last of them. What the system refuses stays as it is.
napi_value keepThreadOff(napi_env env, napi_callback_info info) {
  napi_value raw[3];
  size_t given = 3;
  double thread = 0;
  uint32_t count = 0;
  napi_typedarray_type type;
  size_t length = 0;
  void* data = nullptr;
  if (napi_get_cb_info(env, info, &given, raw, nullptr, nullptr) != napi_ok || given < 3 ||
      napi_get_value_double(env, raw[0], &thread) != napi_ok ||
      napi_get_typedarray_info(env, raw[1], &type, &length, &data, nullptr, nullptr) != napi_ok ||
      type != napi_int32_array || napi_get_value_uint32(env, raw[2], &count) != napi_ok || count > length) {
    napi_throw_error(env, nullptr, "keepThreadOff: (thread, cpus: Int32Array, count)");
    return nullptr;
  }
#if defined(__linux__)
  keepOff(static_cast<pid_t>(thread), static_cast<const int32_t*>(data), count);
#endif
  return nullptr;
}

}  // namespace attndrive
