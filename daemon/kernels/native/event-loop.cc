// Whether the event loop would find something to do if it looked: its descriptor is readable when one of those that it waits
// for is. A look costs far less than a turn of the loop.
#include "event-loop.h"
#if defined(__linux__)
#include <dlfcn.h>
#include <poll.h>
#endif

namespace attndrive {

// hasPendingEvents(): of the calling thread's event loop. Undefined where that can't be told.
napi_value hasPendingEvents(napi_env env, napi_callback_info) {
#if defined(__linux__)
  // Part of Node's interface for addons, but in no header of N-API's.
  using BackendFd = int (*)(const uv_loop_s*);
  static const BackendFd backendFd = reinterpret_cast<BackendFd>(dlsym(RTLD_DEFAULT, "uv_backend_fd"));
  uv_loop_s* loop = nullptr;
  if (backendFd == nullptr || napi_get_uv_event_loop(env, &loop) != napi_ok) return nullptr;
  pollfd look = {backendFd(loop), POLLIN, 0};
  napi_value result = nullptr;
  napi_get_boolean(env, look.fd < 0 || poll(&look, 1, 0) != 0, &result);
  return result;
#else
  return nullptr;
#endif
}

}  // namespace attndrive
