#include "convert.h"

const attndrive::KernelSet attndrive::portableKernels = {"portable", attndrive::attend, attndrive::merge, attndrive::convert,
                                                     attndrive::readSum, attndrive::crc32c};
