#pragma once
#define NAPI_VERSION 8
#include <node_api.h>

namespace attndrive {

napi_value threadId(napi_env env, napi_callback_info info);
napi_value currentCpu(napi_env env, napi_callback_info info);
napi_value keepThreadOff(napi_env env, napi_callback_info info);

}  // namespace attndrive
