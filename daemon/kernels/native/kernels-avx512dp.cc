#include "convert.h"

const attndrive::KernelSet attndrive::avx512dpKernels = {"avx512dp", attndrive::attend, attndrive::merge, attndrive::convert,
                                                       attndrive::readSum, attndrive::crc32cWide};

namespace attndrive {
namespace {
const char* attendFast(const Memory& memory, uint64_t at) { return attendJob(memory, at, true); }
}  // namespace
}  // namespace attndrive

const attndrive::KernelSet attndrive::avx512fastKernels = {"avx512fast", attndrive::attendFast, attndrive::merge,
                                                         attndrive::convert, attndrive::readSum, attndrive::crc32cWide};
