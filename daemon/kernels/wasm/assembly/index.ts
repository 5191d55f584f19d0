// The WebAssembly kernels. Arguments are addresses in the arena, which is this module's memory.
import { crc32c, fillCrcTables } from './crc32c';

fillCrcTables();

export { crc32c };
export { convert } from './convert';
export { attend } from './attend';
export { merge } from './merge';
