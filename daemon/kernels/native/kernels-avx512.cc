#include "convert.h"

const attndrive::KernelSet attndrive::avx512Kernels = {"avx512", attndrive::attend, attndrive::merge, attndrive::convert,
                                                     attndrive::readSum, attndrive::crc32cWide};
