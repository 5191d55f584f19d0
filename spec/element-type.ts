/** Element types of KV, queries and outputs. The codes are wire and media format: never renumber. */
export const elementTypes = {
  f32: { code: 1, bits: 32, meaning: 'IEEE 754 binary32' },
  f16: { code: 2, bits: 16, meaning: 'IEEE 754 binary16' },
  bf16: { code: 3, bits: 16, meaning: 'bfloat16: the upper half of a binary32' },
  int8: {
    code: 4,
    bits: 8,
    meaning: 'integers 0 to 255 with a scale and a minimum for each 64 elements; K and V only',
  },
  int4: { code: 5, bits: 4, meaning: 'integers 0 to 15 with a scale and a minimum for each 64 elements; K and V only' },
} as const;

export type ElementType = keyof typeof elementTypes;
/** What rows can be stored as besides numbers by themselves: quantised-row.ts. */
export type QuantisedType = 'int8' | 'int4';
export type FloatType = Exclude<ElementType, QuantisedType>;

/** In descriptors: "as the sequence stores it". */
export const ELEMENT_TYPE_AS_STORED = 0;

const byCode = new Map<number, ElementType>(
  Object.entries(elementTypes).map(([name, type]) => [type.code, name as ElementType]),
);

export const elementTypeOf = (code: number): ElementType | undefined => byCode.get(code);
export const isQuantised = (type: ElementType): type is QuantisedType => type === 'int8' || type === 'int4';
export const elementSizeBytes = (type: FloatType): number => elementTypes[type].bits / 8;
export const elementTypeNames = Object.keys(elementTypes) as ElementType[];
export const floatTypeNames = elementTypeNames.filter((type): type is FloatType => !isQuantised(type));
