#include "convert.h"

const attndrive::KernelSet attndrive::avx512dpKernels = {"avx512dp", attndrive::attend, attndrive::merge, attndrive::convert,
                                                       attndrive::readSum, attndrive::crc32cWide};
