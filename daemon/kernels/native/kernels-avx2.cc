#include "convert.h"

const attndrive::KernelSet attndrive::avx2Kernels = {"avx2", attndrive::attend, attndrive::merge, attndrive::convert,
                                                     attndrive::readSum, attndrive::crc32c};
