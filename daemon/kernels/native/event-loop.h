#pragma once
#define NAPI_VERSION 8
#include <node_api.h>

namespace attndrive {

napi_value hasPendingEvents(napi_env env, napi_callback_info info);

}  // namespace attndrive
