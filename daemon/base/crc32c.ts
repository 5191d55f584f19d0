/** CRC32C for small structures (headers, entries, records); bulk data goes through the kernels. */
export { crc32c } from '../../spec/crc32c.ts';
