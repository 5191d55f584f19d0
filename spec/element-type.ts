/** Element types of KV, queries and outputs. The codes are wire and media format: never renumber. */
export const elementTypes = {
  f32: { code: 1, sizeBytes: 4, meaning: 'IEEE 754 binary32' },
  f16: { code: 2, sizeBytes: 2, meaning: 'IEEE 754 binary16' },
  bf16: { code: 3, sizeBytes: 2, meaning: 'bfloat16: the upper half of a binary32' },
  // 4 and 5 are kept for int8 and 4-bit groups of 64 with f16 scale and minimum.
} as const;

export type ElementType = keyof typeof elementTypes;

/** In descriptors: "as the sequence stores it". */
export const ELEMENT_TYPE_AS_STORED = 0;

const byCode = new Map<number, ElementType>(
  Object.entries(elementTypes).map(([name, type]) => [type.code, name as ElementType]),
);

export const elementTypeOf = (code: number): ElementType | undefined => byCode.get(code);
export const elementSizeBytes = (type: ElementType): number => elementTypes[type].sizeBytes;
export const elementTypeNames = Object.keys(elementTypes) as ElementType[];
