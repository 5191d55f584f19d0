import { assert } from '../../base/assert.ts';
import { crc32c } from '../../base/crc32c.ts';
import type { KernelResources, Kernels } from '../contract.ts';
import { assemblePages, gatherRows } from '../gather.ts';
import { attend } from './attend.ts';
import { convert, type MemoryViews } from './float-conversion.ts';
import { merge } from './merge.ts';

/** The normative kernel set: slow, and written to be read. */
export function createReferenceKernels({ memory }: KernelResources): Kernels {
  const views: MemoryViews = {
    bytes: new Uint8Array(memory.buffer),
    u16: new Uint16Array(memory.buffer),
    u32: new Uint32Array(memory.buffer),
    f32: new Float32Array(memory.buffer),
  };
  return {
    name: 'reference',
    isa: 'scalar',
    canMapMedia: false,
    canReadRegions: false,
    crc32c: (offset, sizeBytes, seed = 0) => crc32c(views.bytes.subarray(offset, offset + sizeBytes), seed),
    crc32cOf: crc32c,
    crc32cMedia: () => {
      assert(false, 'reference kernels have no media mapping');
    },
    copyResidentMedia: () => {
      assert(false, 'reference kernels have no media mapping');
    },
    convert: (source, sourceType, target, targetType, rowCount, rowElements) =>
      convert(views, source, sourceType, target, targetType, rowCount, rowElements),
    gather: (...rows) => gatherRows(views.bytes, ...rows),
    assemble: (job) => assemblePages(views.bytes, job),
    attend: (job) => attend(views, job),
    merge: (job) => merge(views, job),
  };
}
